"""One training a GPU: a lock file for each, held by the child for as long as it lives. Loads neither torch nor CUDA.

A record lock (`lockf`), since the kernel gives it back at the death of the process that took it, and processes
that are forked from it do not share it. It excludes whoever locks in the same folder, from other containers too.
Tried with processes and made-up names of GPUs; no GPU was at hand when this was written.
"""

import fcntl
import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pynvml

#: Between two looks at a GPU that is taken; a stop is heard as soon.
_AGAIN_S = 0.25

#: Descriptors that must stay open: a lock ends with them.
_held: dict[str, int] = {}


def installed() -> list[str]:
    """UUIDs of the machine's GPUs in the order in which `nvidia-smi` counts them; none without a driver."""
    try:
        pynvml.nvmlInit()
        number = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return []
    found = []
    for place in range(number):
        # One that fell off the bus must not hide the others.
        with suppress(pynvml.NVMLError):
            found.append(str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(place))))
    return found


def visible(there: Sequence[str], asked: str | None) -> list[str]:
    """Those of the GPUs `there` that `CUDA_VISIBLE_DEVICES` allows, in its order; all, if it is not set.

    It names them by number, by UUID or by its beginning; parts of a GPU (`MIG-…`) are taken as they are named.
    As for CUDA, the first name that means nothing ends the list.
    """
    if asked is None:
        return list(there)
    found: list[str] = []
    for name in filter(None, map(str.strip, asked.split(","))):
        meant = _meant(there, name)
        if meant is None:
            break
        found.append(meant)
    return found


def _meant(there: Sequence[str], name: str) -> str | None:
    if name.startswith("MIG-"):
        return name
    if name.isdecimal():
        return there[int(name)] if int(name) < len(there) else None
    alike = [uuid for uuid in there if name.startswith("GPU-") and uuid.startswith(name)]
    return alike[0] if len(alike) == 1 else None


def take_one(
    uuids: Sequence[str], folder: Path, *, waits: Callable[[], object], should_stop: Callable[[], str | None]
) -> str | None:
    """The first GPU that nobody trains on, locked until this process ends. None: asked to stop while it waited.

    `waits` is called once if all are taken. Waiting costs no attempt: the keeper renews the lease meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pause = threading.Event()
    told = False
    while True:
        free = next((uuid for uuid in uuids if _lock(folder, uuid)), None)
        if free is not None or should_stop() is not None:
            return free
        if not told:
            waits()
            told = True
        pause.wait(_AGAIN_S)


def _lock(folder: Path, uuid: str) -> bool:
    path = folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', uuid)}.lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(file)
        return False
    _held[uuid] = file
    return True

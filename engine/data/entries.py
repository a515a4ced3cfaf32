"""Entries on disk by content, one file each, shared by jobs and processes. Knows no media.

`<root>/<two digits>/<the others>` is an entry: an envelope (a checksum and the entry's own key), then its bytes. One
that was torn, altered or put in another's place is found by that, removed, and made anew by whoever wants it.
"""

import contextlib
import fcntl
import os
import threading
import time
import uuid
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Bytes before an entry's own, which then lie as arrays want them.
ENVELOPE = 128
#: A reader notes its use at most this often (seconds): what is read each second need not be written each second.
_TOUCH_S = 60.0
#: A writer that lives finishes its file sooner than this.
_ABANDONED_S = 3600.0
#: What the disk gives a file is a multiple of this.
_BLOCK = 4096
#: Room is made down to this share of the limit, and anew once a process has written a twentieth of the limit: looking at
#: all entries is rare, and two jobs at once do not pass the limit.
_DOWN_TO, _EVERY = 0.9, 20

Bytes = NDArray[np.uint8]


@dataclass
class Entries:
    """At most about `limit` bytes of entries; what was used longest ago goes first. Any thread may ask.

    Raises OSError where the disk does; a reader never does.
    """

    root: Path
    limit: int
    _written: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def path(self, key: str) -> Path:
        """`key` is a sha256 in hex."""
        return self.root / key[:2] / key[2:]

    def get(self, key: str) -> Bytes | None:
        """The entry's bytes, the caller's own; None if it is not there or not what was written."""
        path = self.path(key)
        try:
            whole = _read(path)
        except OSError:
            return None
        found = opened(key, whole)
        if found is None:
            self.drop(key)
        return found

    def drop(self, key: str) -> None:
        with contextlib.suppress(OSError):
            self.path(key).unlink(missing_ok=True)

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        """Writes the entry whole or not at all. No fsync: what a power cut tears, the checksum finds."""
        path = self.path(key)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{uuid.uuid4().hex}.draft")
        try:
            with draft.open("xb", buffering=0) as file:
                for part in (envelope(key, parts), *parts):
                    _write(file.fileno(), memoryview(part))
            draft.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        self._grew(sum(memoryview(part).nbytes for part in parts) + ENVELOPE)

    def _grew(self, size: int) -> None:
        with self._lock:
            self._written += _blocks(size)
            if self._written * _EVERY <= self.limit:
                return
            self._written = 0
        # Beside the work: of millions of entries it takes seconds.
        threading.Thread(target=self.make_room, name="make-room", daemon=True).start()

    def make_room(self) -> int:
        """Drops what was used longest ago if there is more than the limit, and what dead writers left; says how many."""
        with contextlib.suppress(OSError), _alone(self.root) as is_alone:
            return _make_room(self.root, self.limit) if is_alone else 0
        return 0


def envelope(key: str, parts: Sequence[bytes | memoryview]) -> bytes:
    named = f"{key} plait entry 1".encode()
    check = zlib.crc32(named)
    for part in parts:
        check = zlib.crc32(part, check)
    return b"%08x %s" % (check, named) + b" " * (ENVELOPE - 10 - len(named)) + b"\n"


def opened(key: str, whole: Bytes) -> Bytes | None:
    """The bytes in the envelope, a view; None unless they are those that were put under `key`."""
    inside = whole[ENVELOPE:]
    sound = len(whole) >= ENVELOPE and whole[:ENVELOPE].tobytes() == envelope(key, [inside.data])
    return inside if sound else None


def _read(path: Path) -> Bytes:
    """Read, not mapped: a mapped file that is cut off meanwhile kills its reader, and its pages cost as much."""
    with path.open("rb", buffering=0) as file:
        about = os.fstat(file.fileno())
        whole = np.empty(about.st_size, np.uint8)
        rest = whole.data
        while rest and (got := file.readinto(rest)):
            rest = rest[got:]
        if about.st_mtime < time.time() - _TOUCH_S:
            with contextlib.suppress(OSError):
                os.utime(file.fileno())
    return whole[: len(whole) - len(rest)]


def _write(handle: int, rest: memoryview) -> None:
    while rest.nbytes:
        rest = rest[os.write(handle, rest) :]


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[bool]:
    """Whether nobody else makes room just now; the lock ends with its process."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".room").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _make_room(root: Path, limit: int) -> int:
    """Times and sizes are gathered first, names only where something must go: there may be millions."""
    used, sizes = array("d"), array("q")
    for entry, about in _entries(root):
        if not entry.name.startswith("."):
            used.append(about.st_mtime)
            sizes.append(_blocks(about.st_size))
        elif about.st_mtime < time.time() - _ABANDONED_S:
            _drop(entry)
    excess = sum(sizes) - limit
    if excess <= 0:
        return 0
    excess += int((1 - _DOWN_TO) * limit)
    order = np.argsort(np.asarray(used), kind="stable")
    last = min(int(np.searchsorted(np.cumsum(np.asarray(sizes)[order]), excess)), len(order) - 1)
    return _drop_until(root, used[int(order[last])], excess)


def _drop_until(root: Path, newest: float, excess: int) -> int:
    dropped = 0
    for entry, about in _entries(root):
        # What was used since it was looked at first is younger now.
        if excess > 0 and about.st_mtime <= newest and not entry.name.startswith("."):
            dropped += _drop(entry)
            excess -= _blocks(about.st_size)
    return dropped


def _entries(root: Path) -> Iterator[tuple["os.DirEntry[str]", os.stat_result]]:
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]")):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):
                    yield entry, entry.stat(follow_symlinks=False)


def _drop(entry: "os.DirEntry[str]") -> bool:
    with contextlib.suppress(OSError):
        os.unlink(entry.path)
        return True
    return False

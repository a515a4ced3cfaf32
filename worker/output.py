"""What a child prints, on its way to a file that cannot grow without end. The child writes into a pipe."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from db.logs import MOST_BYTES

log = logging.getLogger(__name__)

_CHUNK = 64 * 1024
#: A grandchild that left the group may hold the pipe for ever; the log does not wait for it longer.
_LEFTOVERS_S = 1.0
_CUT = b"[... the beginning of this log was dropped ...]\n"


@contextlib.contextmanager
def kept_in(path: Path, most: int = MOST_BYTES) -> Iterator[int]:
    """A file descriptor for a child's output; the last bytes of it, at most `most`, are in `path` afterwards.

    Printing never fails for the child: on a full disk its words are dropped.
    """
    heard, said = os.pipe()
    thread = threading.Thread(target=_keep, args=(heard, path, most), name="child-output", daemon=True)
    thread.start()
    try:
        yield said
    finally:
        os.close(said)
        thread.join(_LEFTOVERS_S)


def _keep(heard: int, path: Path, most: int) -> None:
    try:
        while chunk := os.read(heard, _CHUNK):
            try:
                _append(path, chunk, most)
            except OSError as error:
                log.warning("a line of %s is lost (%s)", path.name, error.strerror)
    finally:
        os.close(heard)


def _append(path: Path, chunk: bytes, most: int) -> None:
    """Cuts well below the limit before it is passed: a long log is not copied for every line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chunk = chunk[-(most // 2) :]
    if path.exists() and path.stat().st_size + len(chunk) > most:
        _cut(path, most - len(chunk) - len(_CUT))
    with path.open("ab") as file:
        file.write(chunk)


def _cut(path: Path, room: int) -> None:
    with path.open("rb") as file:
        file.seek(-min(room // 2, path.stat().st_size), os.SEEK_END)
        _, _, whole_lines = file.read().partition(b"\n")
    part = path.with_suffix(".part")
    part.write_bytes(_CUT + whole_lines)
    part.replace(path)

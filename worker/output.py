"""What a child prints, on its way to files that cannot grow without end. The child writes into a pipe."""

import contextlib
import logging
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

from db.logs import MOST_BYTES

log = logging.getLogger(__name__)

_CHUNK = 64 * 1024
#: A grandchild that left the group may hold the pipe for ever; the log does not wait for it longer.
_LEFTOVERS_S = 1.0
_CUT = b"[... the beginning of this log was dropped ...]\n"


class Output:
    """The last bytes of what is printed, at most `most`, are in the file `path`; the next job has another.

    Printing never fails for the child: on a full disk its words are dropped.
    """

    def __init__(self, path: Path, most: int = MOST_BYTES) -> None:
        self._path, self._most = path, most
        self._heard, self._said = os.pipe()
        os.set_blocking(self._heard, False)
        self._over = False
        self._reading = threading.Lock()
        self._thread = threading.Thread(target=self._listen, name="child-output", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def writable(self) -> Iterator[int]:
        """The descriptor to start the child with. It is the child's alone afterwards: its end is the pipe's."""
        try:
            yield self._said
        finally:
            os.close(self._said)

    def switch(self, path: Path) -> None:
        """From now on to `path`; all that was printed before is in the old file: it may be another tenant's."""
        with self._reading:
            while self._read():
                pass
            self._path = path

    def finish(self) -> None:
        """After the child's end: its last words are in the file."""
        self._thread.join(_LEFTOVERS_S)

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        while poll.poll():
            with self._reading:
                if self._read() is None:
                    self._over = True
                    os.close(self._heard)
                    return

    def _read(self) -> bool | None:
        """One chunk to the file; False when there is none now, None when there will be none any more."""
        if self._over:
            return None
        try:
            chunk = os.read(self._heard, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            return None
        try:
            _append(self._path, chunk, self._most)
        except OSError as error:
            log.warning("a line of %s is lost (%s)", self._path.name, error.strerror)
        return True


def _append(path: Path, chunk: bytes, most: int) -> None:
    """Cuts well below the limit before it is passed: a long log is not copied for every line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(chunk) > most // 2:
        _replace(path, chunk[-(most // 2) :])
        return
    if path.exists() and path.stat().st_size + len(chunk) > most:
        _cut(path, most - len(chunk) - len(_CUT))
    with path.open("ab") as file:
        file.write(chunk)


def _cut(path: Path, room: int) -> None:
    with path.open("rb") as file:
        file.seek(-min(room // 2, path.stat().st_size), os.SEEK_END)
        _replace(path, file.read())


def _replace(path: Path, end: bytes) -> None:
    """What is left of a log: its whole last lines, with no gap in them."""
    _, _, whole_lines = end.partition(b"\n")
    part = path.with_suffix(".part")
    part.write_bytes(_CUT + (whole_lines or end))
    part.replace(path)

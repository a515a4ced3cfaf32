"""Copies of blobs on this machine's disk, for whoever needs a file and not a stream.

Locks of the kernel's (`flock`) hold copies that are in use and end with the process that has them: so a copy is
fetched by one at a time, whichever threads and processes want it, and is never evicted while somebody reads it.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from db.blobs.folder import drop_old
from db.blobs.store import CHUNK, Measured, Stored
from domain.errors import Unavailable

#: Fetches of two blobs may wait for one another by chance; more of these make that rarer.
_LOCKS = 64
#: Nobody is still fetching what no byte was added to for this long (seconds).
_UNTOUCHED_S = 3600.0


class Copies:
    """Copies in `root`, of at most `most` bytes together unless more are in use at once."""

    def __init__(self, root: Path, most: int) -> None:
        self.root, self._most = root, most

    @contextlib.contextmanager
    def hold(self, key: str, opens: Callable[[], BinaryIO], sha256: str | None) -> Iterator[Path]:
        """The copy of `key`, which stays until the block ends; fetched from `opens` if it is not here yet."""
        path = self.root / key
        while (held := _held(path)) is None:
            self._fetch(path, opens, sha256)
        with held:
            # The copies that were longest not asked for go first.
            os.utime(path)
            yield path

    def _fetch(self, path: Path, opens: Callable[[], BinaryIO], sha256: str | None) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        stripe = int(hashlib.sha256(path.name.encode()).hexdigest(), 16) % _LOCKS
        with (self.root / f".lock-{stripe}").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return
            with opens() as source:
                self._make_room(source.seek(0, os.SEEK_END))
                source.seek(0)
                self._copy(source, path, sha256)

    def _copy(self, source: BinaryIO, path: Path, sha256: str | None) -> None:
        handle, name = tempfile.mkstemp(dir=self.root, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as out:
                stored = _pour(source, out)
                # After a crash of the machine a copy is whole, too.
                out.flush()
                os.fsync(out.fileno())
            if sha256 is not None and stored.sha256 != sha256:
                message = f"The bytes of {path.name} are not those that were stored."
                raise Unavailable(message, code="storage_unavailable")
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _make_room(self, size: int) -> None:
        drop_old([*self.root.glob(".part-*")], time.time() - _UNTOUCHED_S)
        copies = sorted(_copies(self.root))
        total = size + sum(size for _, size, _ in copies)
        for _, size, path in copies:
            if total <= self._most:
                return
            total -= size if _evict(path) else 0


def _pour(source: BinaryIO, out: BinaryIO) -> Stored:
    measured = Measured(source)
    while chunk := measured.read(CHUNK):
        out.write(chunk)
    return measured.stored


def _held(path: Path) -> BinaryIO | None:
    """The copy, open and locked; None when it is not (or no longer) there."""
    with contextlib.ExitStack() as opened, contextlib.suppress(FileNotFoundError):
        file = opened.enter_context(path.open("rb"))
        fcntl.flock(file, fcntl.LOCK_SH)
        # It may have been evicted between the two lines above.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            opened.pop_all()
            return file
    return None


def _evict(path: Path) -> bool:
    """False while somebody has it."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    return False


def _copies(root: Path) -> Iterator[tuple[float, int, Path]]:
    for path in root.glob("[!.]*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            yield found.st_mtime, found.st_size, path

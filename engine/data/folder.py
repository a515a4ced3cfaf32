"""A folder on this machine in the place of a zip: the same reads, and none that leads out of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from domain.manifest import Code
from engine.data.archive import MAX_MEMBER_BYTES, Unreadable, escapes


class Folder:
    """Any thread may read. Links inside the folder are followed, links out of it refused."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    @property
    def names(self) -> list[str]:
        """The files' paths with `/`, sorted. Links to folders are not followed: they may lead in circles."""
        found = (Path(at, name) for at, _, names in os.walk(self._root) for name in names)
        return sorted(path.relative_to(self._root).as_posix() for path in found)

    def close(self) -> None:
        """Nothing is held open."""

    def read(self, name: str, *, folder: str = "") -> bytes:
        """The bytes of the file `name`; else raises Unreadable."""
        with self._opened(name, folder, MAX_MEMBER_BYTES) as file:
            try:
                return file.read()
            except OSError as error:
                raise _unreadable(error) from error

    @contextmanager
    def file(self, name: str, *, most: int) -> Iterator[IO[bytes]]:
        """The file, open, of at most `most` bytes; else raises Unreadable."""
        with self._opened(name, "", most) as file:
            yield file

    def has(self, name: str, *, folder: str = "") -> bool:
        """Whether there is such a file."""
        try:
            return not escapes(name) and (self._root / folder / name).is_file()
        except (OSError, ValueError):
            return False

    def _opened(self, name: str, folder: str, most: int) -> IO[bytes]:
        if escapes(name):
            message = "the path leads out of the folder; write it relative to the table, with '/'"
            raise Unreadable(Code.PATH_ESCAPES_ARCHIVE, message)
        try:
            return self._checked((self._root / folder / name).resolve(), most).open("rb")
        except (OSError, ValueError) as error:
            if isinstance(error, Unreadable):
                raise
            raise _unreadable(error) from error

    def _checked(self, path: Path, most: int) -> Path:
        if not path.is_relative_to(self._root):
            message = "a link leads out of the folder; copy the file into it"
            raise Unreadable(Code.PATH_ESCAPES_ARCHIVE, message)
        # A pipe or a device would be read for ever.
        if not path.is_file():
            raise Unreadable(Code.MISSING_MEDIA, "the folder has no such file; add it, or write null")
        size = path.stat().st_size
        if size > most:
            message = f"the file has {size} bytes, at most {most} are read; make it smaller"
            raise Unreadable(Code.TOO_LARGE, message)
        return path


def _unreadable(error: Exception) -> Unreadable:
    message = f"the file cannot be read ({error.__class__.__name__}); look at its name and its rights"
    return Unreadable(Code.UNREADABLE_MEDIA, message)

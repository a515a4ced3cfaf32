"""Bytes of files, in a folder of this machine (or one that several machines share)."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from db.blobs.joined import Joined
from db.blobs.store import CHUNK, Measured, Stored, Watch, is_key, split


class FolderBlobs:
    """A blob store in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = self.spool = root

    def path(self, key: str) -> Path:
        """Where the blob is (or will be)."""
        split(key)
        return self.root / key[-2:] / key

    def write(self, key: str, stream: BinaryIO, *, limit: int | None = None) -> Stored:
        target, measured = self.path(key), Measured(stream, limit)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as out:
                while chunk := measured.read(CHUNK):
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return measured.stored

    def read(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        file = self.path(key).open("rb")
        file.seek(start)
        return file if length is None else cast(BinaryIO, io.BufferedReader(_Range(file, length)))

    def size(self, key: str) -> int:
        return self.path(key).stat().st_size

    @contextlib.contextmanager
    def local(self, key: str, sha256: str | None = None) -> Iterator[Path]:  # noqa: ARG002 - nothing is fetched
        path = self.path(key)
        path.stat()
        yield path.absolute()

    def join(self, key: str, parts: Sequence[str], *, watch: Watch | None = None) -> Stored:
        with Joined((partial(self.read, part) for part in parts), watch) as stream:
            return self.write(key, cast(BinaryIO, stream))

    def link(self, key: str, filename: str, seconds: int) -> str | None:  # noqa: ARG002 - a folder has no address
        return None

    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def delete_of(self, owner: str) -> None:
        for path in self.path(owner).parent.glob(f"*-of-{owner}"):
            path.unlink(missing_ok=True)

    def owners(self, prefix: str) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for path in self.root.glob(f"*/*-of-{prefix}*"):
            if not is_key(path.name):
                continue
            _, owner = split(path.name)
            with contextlib.suppress(FileNotFoundError):
                found[owner] = max(found.get(owner, 0.0), path.stat().st_mtime)
        return found

    def keys(self, before: float) -> Iterator[str]:
        for path in self.root.glob("*/[!.]*"):
            with contextlib.suppress(FileNotFoundError):
                if is_key(path.name) and not split(path.name)[1] and path.stat().st_mtime < before:
                    yield path.name

    def drop_leftovers(self, before: float) -> None:
        drop_old([*self.root.glob("*/.part-*"), *self.root.glob(".form-*")], before)


class _Range(io.RawIOBase):
    """The next `length` bytes of an open file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._left = file, length

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        chunk = self._file.read(min(len(into), self._left))
        into[: len(chunk)] = chunk
        self._left -= len(chunk)
        return len(chunk)

    def close(self) -> None:
        self._file.close()
        super().close()


def drop_old(paths: Sequence[Path], before: float) -> None:
    """Deletes those files and folders that were not touched since `before` (seconds since 1970)."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

"""Bytes of files, in a folder. Written whole or not at all; the row comes after the bytes."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from domain.errors import TooLarge

_KEY = re.compile(r"[A-Za-z0-9_\-]{1,80}")
_CHUNK = 1024 * 1024
#: Stands between a number and the job that owns the blob.
_OF = "-of-"


class Stored(NamedTuple):
    bytes: int
    sha256: str


class Blobs:
    """A blob store in `root`. Keys are file ids, never anything a user wrote."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where the blob is (or will be)."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a blob key: {key!r}")
        return self.root / key[-2:] / key

    def write(self, key: str, stream: BinaryIO, *, limit: int | None = None) -> Stored:
        """Stores the stream under `key`; raises TooLarge behind `limit` bytes and leaves nothing."""
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as out:
                stored = _copy(stream, out, limit)
                out.flush()
                os.fsync(out.fileno())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return stored

    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def delete_of(self, owner: str) -> None:
        """Deletes the blobs that `part_key` named."""
        for path in self.path(owner).parent.glob(f"*{_OF}{owner}"):
            path.unlink(missing_ok=True)

    def owners(self, prefix: str) -> Mapping[str, float]:
        """Who owns blobs that `part_key` named, and when the last of each came (seconds since 1970)."""
        found: dict[str, float] = {}
        for path in self.root.glob(f"*/*{_OF}{prefix}*"):
            owner = path.name.partition(_OF)[2]
            with contextlib.suppress(FileNotFoundError):
                found[owner] = max(found.get(owner, 0.0), path.stat().st_mtime)
        return found

    def drop_leftovers(self, before: float) -> None:
        """Deletes what a process that died was just writing, if untouched since `before` (seconds since 1970)."""
        for path in [*self.root.glob("*/.part-*"), *self.root.glob(".form-*")]:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def part_key(owner: str, number: int) -> str:
    """The key of one of several blobs that belong to a job and go with it; its end is the job's id."""
    return f"{number}{_OF}{owner}"


def _copy(stream: BinaryIO, out: BinaryIO, limit: int | None) -> Stored:
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        if limit is not None and size > limit:
            raise TooLarge(f"The file is larger than the limit of {limit} bytes.", param="file")
        digest.update(chunk)
        out.write(chunk)
    return Stored(size, digest.hexdigest())

"""What a store of bytes can do, wherever it keeps them. Written whole or not at all; the row comes after the bytes."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from domain.errors import TooLarge

CHUNK = 1024 * 1024
_KEY = re.compile(r"[A-Za-z0-9_\-]{1,80}")
#: Stands between a number and the job that owns the blob.
_OF = "-of-"


Watch = Callable[[bytes], None]


class Stored(NamedTuple):
    bytes: int
    sha256: str


class Blobs(Protocol):
    """A store of blobs. Keys are file ids or `part_key`s, never anything a user wrote.

    A key that holds nothing is a FileNotFoundError. A store that does not answer is `Unavailable`
    (code `storage_unavailable`), after its time limits and tries.
    """

    @property
    def spool(self) -> Path:
        """A folder on this machine's disk for what is on its way in; `drop_leftovers` looks after it."""

    def write(self, key: str, stream: BinaryIO, *, limit: int | None = None) -> Stored:
        """Stores the stream under `key`; raises TooLarge behind `limit` bytes and leaves nothing."""

    def read(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """The bytes from `start`, at most `length` of them; to be closed."""

    def size(self, key: str) -> int:
        """How many bytes the blob has."""

    def local(self, key: str, sha256: str | None = None) -> AbstractContextManager[Path]:
        """The blob as a file on this machine's disk, until the block ends. To be read only.

        Where it is fetched for that, its bytes are compared with `sha256`.
        """

    def join(self, key: str, parts: Sequence[str], *, watch: Watch | None = None) -> Stored:
        """Stores under `key` the blobs `parts`, one behind the other. They stay.

        `watch` sees the bytes as they pass; what it raises ends the join, and nothing is stored.
        """

    def link(self, key: str, filename: str, seconds: int) -> str | None:
        """An address from which anybody may download the blob for so long; None where there is none."""

    def delete(self, key: str) -> None:
        """Deletes the blob; told twice it does nothing."""

    def delete_of(self, owner: str) -> None:
        """Deletes the blobs that `part_key` named."""

    def owners(self, prefix: str) -> Mapping[str, float]:
        """Who owns blobs that `part_key` named, and when the last of each came (seconds since 1970)."""

    def keys(self, before: float) -> Iterator[str]:
        """The blobs that are nobody's part and came before that instant (seconds since 1970)."""

    def drop_leftovers(self, before: float) -> None:
        """Deletes what a process that died was just writing, if untouched since `before` (seconds since 1970)."""


def part_key(owner: str, part: int | str) -> str:
    """The key of one of several blobs that belong to a job or an upload and go with it; its end is the owner's id."""
    return f"{part}{_OF}{owner}"


def split(key: str) -> tuple[str, str]:
    """Number and owner of a part; of a blob that stands for itself, its key and "". Refuses what is no key."""
    if not is_key(key):
        raise ValueError(f"not a blob key: {key!r}")
    name, _, owner = key.partition(_OF)
    return name, owner


def is_key(name: str) -> bool:
    """Whether this can be a blob's name. What else lies where the blobs do is somebody else's."""
    return _KEY.fullmatch(name) is not None


class Measured:
    """A stream that is hashed and counted while it is read; TooLarge behind `limit` bytes."""

    def __init__(self, stream: BinaryIO, limit: int | None = None) -> None:
        self._stream, self._limit = stream, limit
        self._digest, self._bytes = hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._bytes += len(chunk)
        if self._limit is not None and self._bytes > self._limit:
            raise TooLarge(f"The file is larger than the limit of {self._limit} bytes.", param="file")
        self._digest.update(chunk)
        return chunk

    @property
    def stored(self) -> Stored:
        return Stored(self._bytes, self._digest.hexdigest())

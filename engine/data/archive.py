"""A zip's members, read in place and never unpacked to disk. Knows nothing of tables and columns."""

import io
import struct
import tempfile
import threading
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from domain.manifest import Code, Issue

#: A picture or a sound larger than this is no training example but a mistake, or an attack.
MAX_MEMBER_BYTES = 512 * 2**20
#: Deflate cannot pack media tighter than about this; silence and blank pictures can, hence the floors below.
MAX_RATIO = 200
RATIO_FLOOR_BYTES = 32 * 2**20
#: What all members together may unpack to; members that share their bytes are caught by it too.
MAX_TOTAL_BYTES = 1 * 2**40

#: bz2 and lzma unpack a few bytes to any length in one call; deflate stops where it is told to.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_CHUNK = 2**20
#: A table of no more than this is not written to the disk.
_IN_MEMORY_BYTES = 4 * 2**20

#: All that the standard library raises on a hostile zip (RuntimeError: a password, a version that it cannot do).
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class Unreadable(OSError):
    """These bytes cannot be had; `code` is one of `domain.manifest.Code`, `message` says what to do."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def escapes(name: str) -> bool:
    """Whether a path is absolute or climbs, in any system's way of writing."""
    drive = len(name) > 1 and name[1] == ":" and name[0].isalpha()
    return drive or name.startswith("/") or "\\" in name or ".." in name.split("/")


def _folded(name: str) -> str:
    """One writing of a name: Macs store é as two characters, and a table may write it as one."""
    return unicodedata.normalize("NFC", "/".join(part for part in name.split("/") if part not in ("", ".")))


class Archive:
    """An open zip. Any thread may read.

    `issues` are what is wrong with its list of members; `bomb` says why nothing of it should be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except _ZIP_ERRORS as error:
            message = f"The zip is damaged or cut off ({error}); pack and upload it again."
            raise Unreadable(Code.UNSUPPORTED_FORMAT, message) from error
        self._lock = threading.Lock()
        # A damaged name may be empty, which `ZipInfo.is_dir` cannot look at.
        infos = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        self._members = {_folded(info.filename): info for info in infos}
        self.bomb = _bomb(infos, path.stat().st_size)
        self.issues = list(_dangers(infos))

    @property
    def names(self) -> list[str]:
        return sorted(self._members)

    def close(self) -> None:
        self._zip.close()

    def read(self, name: str, *, folder: str = "") -> bytes:
        """The bytes of the member `name` of `folder`, whole and with a good checksum; else raises Unreadable."""
        return b"".join(self._chunks(self._member(name, folder, MAX_MEMBER_BYTES)))

    @contextmanager
    def file(self, name: str, *, most: int) -> Iterator[IO[bytes]]:
        """The member as a file that can be sought in, of at most `most` bytes; else raises Unreadable.

        It is unpacked to a nameless file, whole and with a good checksum, before it is given.
        """
        info = self._member(name, "", most)
        small = info.file_size <= _IN_MEMORY_BYTES
        with io.BytesIO() if small else tempfile.TemporaryFile(prefix="plait-") as file:
            for chunk in self._chunks(info):
                file.write(chunk)
            file.seek(0)
            yield file

    def has(self, name: str, *, folder: str = "") -> bool:
        """Whether there is such a member."""
        return not escapes(name) and _folded(folder + name) in self._members

    def _member(self, name: str, folder: str, most: int) -> zipfile.ZipInfo:
        if escapes(name):
            message = "the path leads out of the upload; write it relative to the table, with '/'"
            raise Unreadable(Code.PATH_ESCAPES_ARCHIVE, message)
        info = self._members.get(_folded(folder + name))
        if info is None:
            raise Unreadable(Code.MISSING_MEDIA, "the zip has no such file; add it, or write null")
        _refuse(info, most)
        return info

    def _chunks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self._lock, self._zip.open(info) as member:
                # A read of everything would unpack beyond the size that was just checked.
                while chunk := member.read(_CHUNK):
                    yield chunk
        except _ZIP_ERRORS as error:
            message = f"the zip is damaged here ({error}); pack it again"
            raise Unreadable(Code.UNREADABLE_MEDIA, message) from error


def _refuse(info: zipfile.ZipInfo, most: int) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise Unreadable(Code.UNSUPPORTED_FORMAT, "the file is encrypted; pack it without a password")
    if info.compress_type not in _METHODS:
        raise Unreadable(Code.UNSUPPORTED_FORMAT, "the zip is packed in an unusual way; store or deflate it")
    if info.file_size > most:
        message = f"the file has {info.file_size} bytes, at most {most} are read; make it smaller"
        raise Unreadable(Code.TOO_LARGE, message)
    if is_bomb(info.file_size, info.compress_size):
        message = f"the file unpacks from {info.compress_size} to {info.file_size} bytes; store it unpacked"
        raise Unreadable(Code.ZIP_BOMB, message)


def is_bomb(unpacked: int, packed: int) -> bool:
    """Whether so few bytes cannot honestly hold so many."""
    return unpacked > RATIO_FLOOR_BYTES and unpacked > MAX_RATIO * packed


def _bomb(infos: list[zipfile.ZipInfo], size: int) -> str | None:
    total = sum(info.file_size for info in infos)
    if total <= MAX_TOTAL_BYTES and not is_bomb(total, size):
        return None
    return f"The zip unpacks from {size} to {total} bytes; store its files unpacked."


def _dangers(infos: list[zipfile.ZipInfo]) -> Iterable[Issue]:
    for name, count in Counter(_folded(info.filename) for info in infos).items():
        if count > 1:
            message = f"'{name[:200]}' is in the zip {count} times; keep the one that is meant."
            yield Issue(Code.UNSUPPORTED_FORMAT, message, value=name[:200])
    for info in infos:
        if escapes(info.orig_filename) or "\0" in info.orig_filename:
            name = info.orig_filename[:200].replace("\0", "\\0")
            message = f"'{name}' in the zip leads out of it; pack the folder with relative paths."
            yield Issue(Code.PATH_ESCAPES_ARCHIVE, message, value=name)

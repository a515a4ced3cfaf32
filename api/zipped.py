"""A folder as a zip, made while it is sent: no copy on the disk, and never more than a chunk in memory."""

import time
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

_CHUNK = 1024 * 1024


class _Sink:
    """What the archive is written to. It cannot be sought in, so sizes follow each member's bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def files_of(folder: Path) -> list[Path]:
    """The folder's own files, in order; a link might lead anywhere."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def zipped(folder: Path, made_at: float) -> Iterator[bytes]:
    """The bytes of an archive of the folder's files. Stored, not deflated: weights do not shrink."""
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_STORED) as archive:  # type: ignore[call-overload] # a file need not seek
        for path in files_of(folder):
            member = ZipInfo(path.relative_to(folder).as_posix(), time.gmtime(made_at)[:6])
            member.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield sink.take()
    yield sink.take()

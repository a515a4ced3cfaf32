"""Packs a folder into a zip for the upload. Knows no server."""

import logging
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from plait.errors import LocalFileError

log = logging.getLogger("plait")

#: Compressing these again costs time and saves nothing.
_COMPRESSED = frozenset(
    {
        ".aac",
        ".avif",
        ".flac",
        ".gif",
        ".jpeg",
        ".jpg",
        ".m4a",
        ".mkv",
        ".mov",
        ".mp3",
        ".mp4",
        ".ogg",
        ".opus",
    }
    | {".png", ".webm", ".webp", ".bz2", ".gz", ".parquet", ".xz", ".zip", ".zst"}
)


def pack(folder: Path, target: Path) -> int:
    """Writes the folder's files to the zip `target` and returns their number.

    Left out: names that begin with a dot, and with a warning, symbolic links and what is no regular file.
    The same files give the same bytes.
    """
    count = 0
    try:
        with zipfile.ZipFile(target, "w") as archive:
            for path in _files(folder):
                _add(archive, path, path.relative_to(folder).as_posix())
                count += 1
    except OSError as error:
        raise LocalFileError(f"{folder} cannot be packed: {error}.") from None
    except UnicodeEncodeError as error:
        raise LocalFileError(f"{folder} holds a file whose name is not UTF-8: {error.object!r}.") from None
    if not count:
        raise LocalFileError(f"{folder} holds no files to send.")
    return count


def _files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            yield Path(entry.path)
        else:
            log.warning("%r is not sent: it is a symbolic link or no regular file", entry.path)


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o644 << 16
    info.file_size = path.stat().st_size
    stored = path.suffix.lower() in _COMPRESSED
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with path.open("rb") as source, archive.open(info, "w") as member:
        shutil.copyfileobj(source, member, 1 << 20)

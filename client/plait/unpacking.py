"""Unpacks a zip that came from outside into a folder of its own. Trusts no name and no size in it."""

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from plait.errors import LocalFileError

#: A model's folder has about five files.
_MOST_FILES = 10_000
_CHUNK = 1 << 20


def refuse_occupied(target: Path) -> None:
    """Raises LocalFileError unless `target` is free: absent, or an empty folder."""
    try:
        is_free = not any(target.iterdir()) if target.is_dir() else not os.path.lexists(target)
    except OSError as error:
        raise LocalFileError(f"{target} cannot be read: {error.strerror}.") from None
    if not is_free:
        raise LocalFileError(f"{target} is there already and not empty.", hint="Name another folder.")


def unpack(packed: Path, folder: Path) -> None:
    """All files of the zip below `folder`, which is made. Raises LocalFileError, and OSError if a disk is full."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(packed) as archive:
            members = list(_members(archive))
            _refuse_too_large(sum(info.file_size for info, _ in members), folder)
            for info, path in members:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                # Reading to the end compares the checksum; "x" refuses a name that is there already.
                with archive.open(info) as source, target.open("xb") as out:
                    shutil.copyfileobj(source, out, _CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise LocalFileError(
            f"The server sent a zip that cannot be unpacked: {error}.", hint="Fetch it again."
        ) from None
    except FileExistsError as error:
        raise _refused(error.filename, "its name comes twice") from None


def move_in(folder: Path, target: Path) -> None:
    """Gives the finished folder its name. An empty folder makes room; whatever appeared meanwhile stays."""
    if target.is_dir():
        try:
            target.rmdir()
        except OSError:
            refuse_occupied(target)
            raise
    folder.rename(target)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The files, each with its path inside the folder."""
    infos = archive.infolist()
    if len(infos) > _MOST_FILES:
        raise LocalFileError(f"The server sent a zip of {len(infos)} files; a model has fewer.")
    for info in infos:
        path = PurePosixPath(info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or "\0" in info.filename:
            raise _refused(info.filename, "it leads out of the folder")
        if "\\" in info.filename or PureWindowsPath(info.filename).drive:
            raise _refused(info.filename, "it leads out of the folder")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(info.filename, "it is no regular file")
        if not info.is_dir():
            yield info, path


def _refuse_too_large(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise LocalFileError(
            f"The model needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there.",
            hint="Make room, or name a folder on another disk.",
        )


def _refused(name: str, why: str) -> LocalFileError:
    return LocalFileError(f"The server sent a zip with {name!r} in it: {why}. Nothing was written.")

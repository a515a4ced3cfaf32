"""What jobs write: folders of one claim each, complete and checksummed before a row names them.

Bytes first, row second: a folder that no row names is an orphan, invisible and swept.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

MANIFEST = "manifest.json"


class Artifacts:
    """The artifact store in `root`; a `ref` is a path relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, job_id: str, fence: int) -> Path:
        """A fresh folder for one claim: a fenced worker can never write into its successor's."""
        folder = self.root / "jobs" / job_id / f"{fence}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        return folder

    def ref(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()

    def path(self, ref: str) -> Path:
        """The folder of a ref; refuses one that climbs out of the store."""
        folder = (self.root / ref).resolve()
        if not folder.is_relative_to(self.root.resolve()):
            raise ValueError(f"not an artifact: {ref!r}")
        return folder

    def remove(self, ref: str) -> bool:
        """Removes the folder of a ref; False if it was not there."""
        folder = self.path(ref)
        was_there = folder.is_dir()
        shutil.rmtree(folder, ignore_errors=True)
        return was_there

    def owners(self) -> Mapping[str, float]:
        """The jobs that have folders, and when the last of each was made (seconds since 1970)."""
        found: dict[str, float] = {}
        for folder in (self.root / "jobs").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                found[folder.name] = folder.stat().st_mtime
        return found

    def prune(self, job_id: str, *, keep: Iterable[str | None], since: int | None = None) -> int:
        """Removes the folders of a job's claims that nothing names any more; how many.

        Those of the claims from fence `since` on stay: they are being written.
        """
        named = {ref.split("/")[2] for ref in keep if ref}
        folder, gone = self.root / "jobs" / job_id, 0
        for claim in folder.iterdir() if folder.is_dir() else ():
            fence = _fence(claim)
            if fence is None or claim.name in named or (since is not None and fence >= since):
                continue
            shutil.rmtree(claim, ignore_errors=True)
            gone += 1
        # Of a job that left nothing, nothing is left. A folder that is in use stays.
        with contextlib.suppress(OSError):
            folder.rmdir()
        return gone


def _fence(claim: Path) -> int | None:
    """None for what no claim made, such as a mount's `lost+found`."""
    first = claim.name.partition("-")[0]
    return int(first) if first.isdecimal() else None


def seal(folder: Path) -> None:
    """Writes the manifest (path -> sha256) and flushes every file and folder to the disk."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    sums = {p.relative_to(folder).as_posix(): _sha256(p) for p in files}
    target = folder / MANIFEST
    target.write_text(json.dumps({"version": 1, "files": sums}, indent=1))
    for path in (*files, target, *(p for p in folder.rglob("*") if p.is_dir()), folder, folder.parent):
        _fsync(path)


def is_whole(folder: Path) -> bool:
    """Whether a sealed folder still holds what its manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return all(_sha256(folder / name) == digest for name, digest in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

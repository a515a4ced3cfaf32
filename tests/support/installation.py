"""`plait-server up` as a user starts it: a real supervisor with everything under it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import settings as configuration
from support.stack import ROOT, kill_tree, until


class Installation:
    def __init__(self, data: Path, process: "subprocess.Popen[bytes]") -> None:
        self.data, self.process = data, process

    @property
    def about(self) -> dict[str, Any]:
        return dict(json.loads((self.data / "plait.json").read_text()))

    @property
    def logs(self) -> str:
        return "\n".join(p.read_text(errors="replace")[-3000:] for p in self.data.rglob("*.log"))

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def installation(data: Path, *, port: int = 0, **settings: Any) -> Iterator[Installation]:
    """Up on `port` or any free one, ready; stopped as a user stops it."""
    data.mkdir(exist_ok=True)
    values = {"data": data, "lease_s": 8.0, "poll_s": 0.5, "allow_hub": False, **settings}
    with (data / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "manage", "up", "--port", str(port)],
            cwd=ROOT,
            env=configuration.environment(configuration.Settings(**values)) | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
    made = Installation(data, process)
    try:
        until(
            lambda: (data / "plait.json").exists() or process.poll() is not None,
            bool,
            limit_s=60,
            about=lambda: made.logs,
        )
        assert process.poll() is None, made.logs
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            kill_tree(process.pid, signal.SIGKILL)

"""A broker of their own for the tests of the bus: they stop it, flush it and start it again."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import broker


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """The broker's process and its URL."""
    process, url = broker.start(tmp_path)
    yield process, url
    process.kill()
    process.wait()
    broker.remove_socket(url)


@pytest.fixture
def url(running: tuple[object, str]) -> str:
    return running[1]

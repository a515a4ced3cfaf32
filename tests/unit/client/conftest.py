"""A scripted server, a client of it that waits for nothing, and an empty environment."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from plait import Client
from plait.cli import main
from support.scripted import ScriptedServer


@pytest.fixture(autouse=True)
def _nothing_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    proxies = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    for name in ("PLAIT_BASE_URL", "PLAIT_API_KEY", "FORCE_COLOR", *proxies):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.stop()


@pytest.fixture
def waits() -> list[float]:
    """The pauses that the client made."""
    return []


@pytest.fixture
def client(server: ScriptedServer, waits: list[float]) -> Iterator[Client]:
    with Client(server.base_url, "plait-key", wait=waits.append) as made:
        yield made


@pytest.fixture
def plait(client: Client) -> Callable[..., Result]:
    """Runs the command line with the client that waits for nothing."""
    return lambda *arguments, text=None: CliRunner().invoke(main, arguments, input=text, obj=client)

"""The client is a wheel of its own: it imports nothing of the server and carries the same version."""

import ast
import sys
import tomllib
from pathlib import Path

from plait import __version__

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "client" / "plait"
#: What the wheel depends on, by the name it is imported under.
ALLOWED = {"plait", "click", "httpx", "httpx_sse", "rich", "yaml"} | sys.stdlib_module_names


def imported_roots(source: str) -> set[str]:
    """The first names of all imports, wherever they stand."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    from_ = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in plain | from_}


def test_the_client_imports_its_own_dependencies_and_nothing_of_the_server() -> None:
    sources = sorted(CLIENT.rglob("*.py"))

    strangers = {path.name: imported_roots(path.read_text()) - ALLOWED for path in sources}

    assert sources
    assert {name: roots for name, roots in strangers.items() if roots} == {}


def test_only_one_file_of_the_client_reads_the_environment() -> None:
    texts = {path.name: path.read_text() for path in CLIENT.rglob("*.py")}

    readers = [name for name, text in texts.items() if "os.environ" in text or "getenv" in text]

    assert readers == ["config.py"]


def test_every_package_of_the_client_is_in_its_wheel() -> None:
    about = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())

    folders = {".".join(path.parent.relative_to(CLIENT.parent).parts) for path in CLIENT.rglob("__init__.py")}

    assert folders == set(about["tool"]["setuptools"]["packages"])
    assert (CLIENT / "py.typed").exists()


def test_client_and_server_carry_the_same_version() -> None:
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert server["project"]["version"] == __version__

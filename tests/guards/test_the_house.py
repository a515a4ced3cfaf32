"""What people forget: floors, packages, settings and files that must say the same."""

import ast
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from ops.doctor import ROOT_PACKAGES
from settings import Settings

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = [p for name in ROOT_PACKAGES for p in sorted((ROOT / name).rglob("*.py"))]


def loaded_by(statement: str) -> set[str]:
    """The modules in a fresh interpreter after `statement`."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_every_root_folder_with_code_is_a_listed_package() -> None:
    folders = {p.parent.name for p in ROOT.glob("*/__init__.py")}

    assert folders == set(ROOT_PACKAGES)
    listed = {pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert listed == set(ROOT_PACKAGES)


def test_our_package_names_belong_to_our_distribution_alone() -> None:
    owners = packages_distributions()

    assert {
        name: owners.get(name) for name in ROOT_PACKAGES if set(owners.get(name, [])) - {"plait-server"}
    } == {}


def test_transformers_does_not_take_our_kernels_for_another_package() -> None:
    program = (
        "from transformers.utils import is_kernels_available; from transformers import BertModel;"
        "assert not is_kernels_available(); print(BertModel.__name__)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "BertModel", done.stderr


def test_the_version_is_a_calendar_version() -> None:
    year, month, _ = PROJECT["project"]["version"].split(".")

    assert int(year) >= 2026
    assert 1 <= int(month) <= 12


@pytest.mark.parametrize(
    "statement",
    [
        "import api.app",
        "import worker.app",
        "import worker.handlers.validate",
        "import worker.handlers.check",
        "import worker.upkeep",
    ],
)
def test_only_the_training_child_loads_torch(statement: str) -> None:
    assert not {"torch", "transformers"} & loaded_by(statement)


def test_the_web_process_loads_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "alembic", "boto3", "pandas", "numpy", "sklearn"}

    assert not heavy & loaded_by("import api.app, api.serve")


def test_boto3_is_loaded_only_where_a_bucket_is_configured(tmp_path: Path) -> None:
    started = f"import api.app, pathlib, settings; api.app.create_app(settings.Settings(pathlib.Path({str(tmp_path)!r}){{}}))"

    assert "boto3" not in loaded_by(started.format(""))
    assert "boto3" in loaded_by(started.format(", s3_bucket='b', s3_region='us-east-1'"))


def test_the_environment_is_read_in_settings_only() -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in [*SOURCES, *ROOT.glob("*.py")]
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }

    assert readers == {"settings.py"}


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    documented = {word for word in text.replace("`", " ").split() if word.startswith("PLAIT_")}

    assert documented == {f"PLAIT_{f.name.upper()}" for f in fields(Settings) if f.name != "supervisor"}


def test_no_test_sleeps() -> None:
    sleepers = [
        path.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    ]

    assert sleepers == []


def test_there_is_no_package_marker_under_tests() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_nothing_unpickles_or_runs_remote_code() -> None:
    calls = [
        f"{path.relative_to(ROOT)}: {ast.unparse(node)[:80]}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _is_dangerous(node)
    ]

    assert calls == []


def _is_dangerous(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    words = {k.arg: ast.unparse(k.value) for k in call.keywords}
    return (
        name in ("eval", "exec", "pickle.load", "pickle.loads", "os.system")
        or (name == "torch.load" and words.get("weights_only") != "True")
        or words.get("shell") == "True"
        or words.get("trust_remote_code") == "True"
    )

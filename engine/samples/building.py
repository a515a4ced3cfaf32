"""Writes a sample set into a folder and a zip, once: seeded, kept when it is finished, never half there."""

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

Say = Callable[[str], None]


def built(out: Path, recipe: Mapping[str, Any], write: Callable[[Path], None], say: Say, doing: str) -> Path:
    """`write` fills a folder; the set is `out` and `<out>.zip`, whose path is returned.

    `recipe` is all that the bytes depend on, and is kept beside them as `built.json`. A finished set is kept; two builds
    at once are harmless.
    """
    target = out.with_suffix(".zip")
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_suffix(".lock")):
        if _is_finished(out, target, recipe):
            say(f"{target} is there already.")
        else:
            say(doing)
            _build(out, target, recipe, write)
    return target


def _build(out: Path, target: Path, recipe: Mapping[str, Any], write: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as part:
        made = Path(part) / "set"
        write(made)
        (made / "built.json").write_text(json.dumps(recipe))
        _zip(made, Path(part) / "set.zip")
        shutil.rmtree(out, ignore_errors=True)
        os.replace(Path(part) / "set.zip", target)
        os.replace(made, out)


def _is_finished(out: Path, target: Path, recipe: Mapping[str, Any]) -> bool:
    kept = out / "built.json"
    return target.is_file() and kept.is_file() and json.loads(kept.read_text()) == recipe


def _zip(folder: Path, target: Path) -> None:
    """Stored, sorted and without dates: the same files make the same zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "built.json"):
            out.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())

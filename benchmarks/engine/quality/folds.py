"""Grouped folds of a data set, each as a zip that a training takes. Knows no spec and no network."""

import json
import random
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Of the groups that do not test, one of so many validates: it picks the best step.
VALIDATES_EVERY = 10

Row = Mapping[str, Any]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def dealt(rows: Sequence[Row], group: str, folds: int, seed: int = 0) -> dict[str, int]:
    """The fold of each group: large groups first, each to the fold with the fewest rows so far."""
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row[group]] = sizes.get(row[group], 0) + 1
    names = sorted(sizes)
    random.Random(seed).shuffle(names)
    names.sort(key=lambda name: -sizes[name])
    filled = [0] * folds
    fold_of = {}
    for name in names:
        least = filled.index(min(filled))
        fold_of[name] = least
        filled[least] += sizes[name]
    return fold_of


def split_rows(rows: Sequence[Row], group: str, folds: int, fold: int) -> list[dict[str, Any]]:
    """`rows` with the splits of one fold: no group is in two of them."""
    fold_of = dealt(rows, group, folds)
    others = sorted(name for name, at in fold_of.items() if at != fold)
    random.Random(fold).shuffle(others)
    validating = set(others[::VALIDATES_EVERY])
    return [dict(row) | {"split": _split(row[group], fold_of, fold, validating)} for row in rows]


def _split(name: str, fold_of: Mapping[str, int], fold: int, validating: set[str]) -> str:
    if fold_of[name] == fold:
        return "test"
    return "validation" if name in validating else "train"


def write_zip(folder: Path, rows: Sequence[Row], target: Path) -> None:
    """`rows` and the media that they name; the same rows make the same zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        out.writestr(zipfile.ZipInfo("metadata.jsonl"), "".join(json.dumps(row) + "\n" for row in rows))
        named = {value for row in rows for key, value in row.items() if key.endswith("_file_name") and value}
        for name in sorted(named):
            out.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())

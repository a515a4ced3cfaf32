"""The evidence's own arithmetic: folds never share a group, and intervals are as wide as the groups are few."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.engine.quality.folds import dealt, split_rows, write_zip
from benchmarks.engine.quality.summary import found, interval

ROWS = [{"id": str(n), "voice": f"v{n % 23}", "label": str(n % 10)} for n in range(230)]


def test_no_group_is_in_two_splits_and_every_row_is_tested_once() -> None:
    tested: list[str] = []
    for fold in range(5):
        rows = split_rows(ROWS, "voice", 5, fold)
        splits: dict[str, set[str]] = {}
        for row in rows:
            splits.setdefault(row["voice"], set()).add(row["split"])
        assert all(len(found) == 1 for found in splits.values())
        assert {row["split"] for row in rows} == {"train", "validation", "test"}
        tested += [row["id"] for row in rows if row["split"] == "test"]

    assert sorted(tested) == sorted(row["id"] for row in ROWS)


def test_folds_are_about_equally_large() -> None:
    fold_of = dealt(ROWS, "voice", 5)
    sizes = np.bincount([fold_of[row["voice"]] for row in ROWS])

    assert sizes.max() - sizes.min() <= 10


def test_a_zip_holds_the_rows_and_only_the_media_that_they_name(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())

    write_zip(tmp_path, [{"id": "1", "image_file_name": "a.png", "label": "x"}], tmp_path / "out.zip")

    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == ["metadata.jsonl", "a.png"]


def test_rows_of_one_group_count_as_one_draw() -> None:
    rng = np.random.default_rng(0)
    of_group = rng.integers(0, 2, 20).astype(float)

    alone = interval(np.repeat(of_group, 10), [str(n) for n in range(200)])
    grouped = interval(np.repeat(of_group, 10), [str(n // 10) for n in range(200)])

    assert grouped[1] - grouped[0] == pytest.approx(3.16 * (alone[1] - alone[0]), rel=0.25)


def test_a_difference_is_over_the_folds_that_both_have(tmp_path: Path) -> None:
    (tmp_path / "av-digits").mkdir()
    (tmp_path / "av-digits" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    lines = []
    for arm, folds, bit in (("fused", (0, 1), "1"), ("image", (0,), "0"), ("audio", (0, 1), "1")):
        for fold in folds:
            tested = sum(row["split"] == "test" for row in split_rows(ROWS, "voice", 5, fold))
            told = {"arm": arm, "fold": fold, "seed": 0, "condition": "whole", "right": bit * tested}
            lines.append(json.dumps(told))
    (tmp_path / "av_digits_answers.jsonl").write_text("\n".join(lines))

    table = {line["what"]: line for line in found("av_digits", tmp_path)}

    assert (table["fused / whole"]["value"], table["fused / whole"]["folds"]) == (1.0, 2)
    assert (
        table["fused / whole - image / whole"]["value"],
        table["fused / whole - image / whole"]["folds"],
    ) == (
        1.0,
        1,
    )
    assert table["fused / whole - audio / whole"]["value"] == 0.0

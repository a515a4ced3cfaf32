"""Bad rows that a job does without: the check decides, the training opens the same rows, and nothing shifts."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.bad_rows import BadRows
from domain.errors import EngineError
from domain.specs import Multimodal
from engine.data.check import Report, check
from engine.data.manifest import open_dataset
from engine.data.splits import Splits, open_splits
from support.datasets import png, zip_of

RNG = np.random.default_rng(0)
Rows = list[dict[str, Any] | str]


def picture() -> bytes:
    return png(RNG.integers(0, 255, (8, 8, 3), np.uint8))


def rows_of(count: int = 12) -> list[dict[str, Any]]:
    return [
        {"id": f"r{n}", "image_file_name": f"{n}.png", "text": f"row {n}", "label": "ab"[n % 2]}
        for n in range(count)
    ]


def packed(folder: Path, rows: Rows, **spoiled: bytes) -> Path:
    media = {f"{n}.png": picture() for n in range(12)} | {f"{k[1:]}.png": v for k, v in spoiled.items()}
    return zip_of(folder / "data.zip", rows, media)


def checked(path: Path, on_bad_row: str, most: float = 0.5, role: str = "training", **more: Any) -> Report:
    spec = {"on_bad_row": on_bad_row, "max_bad_fraction": most}
    with open_dataset(path) as dataset:
        return check(dataset, Multimodal.model_validate(spec), role=role, **more)


def opened(files: ExitStack, path: Path, report: Report) -> Splits:
    """As the training opens the file, after the decision went through a job's row."""
    bad = BadRows.read(json.loads(json.dumps(report.bad.spelled())))
    return open_splits(files, Multimodal(), path, None, None, 0, {"training_file": bad})


def spoiled_rows() -> Rows:
    rows: Rows = list(rows_of())
    rows[1] = '{"id": "r1", "label": '
    rows[3] |= {"label": None}  # type: ignore[operator]
    rows[5] |= {"image_file_name": "gone.png"}  # type: ignore[operator]
    return rows


def test_skipped_rows_are_left_out_and_the_others_keep_their_lines_and_ids(tmp_path: Path) -> None:
    path = packed(tmp_path, spoiled_rows(), _7=b"no picture")

    report = checked(path, "skip")
    with ExitStack() as files:
        splits = opened(files, path, report)
        seen = {(e.row.line, e.row.id) for e in splits.all}

    assert (report.errors, report.bad.skipped) == ([], {2, 4, 6, 8})
    assert seen == {(n + 1, f"r{n}") for n in (0, 2, 4, 6, 8, 9, 10, 11)}
    assert (splits.skipped, splits.masked) == (4, 0)


def test_masked_cells_count_as_missing_and_their_rows_stay(tmp_path: Path) -> None:
    path = packed(tmp_path, spoiled_rows(), _7=b"no picture")

    report = checked(path, "mask")
    with ExitStack() as files:
        splits = opened(files, path, report)
        has = {e.row.line: (e.has("image"), e.has("text")) for e in splits.all}

    assert (report.bad.skipped, report.bad.masked) == ({2, 4}, {"image": {6, 8}})
    assert [line for line, both in has.items() if both == (False, True)] in ([6, 8], [8, 6])
    assert len(has) == 10
    assert (splits.skipped, splits.masked) == (2, 2)


def test_what_was_left_out_or_masked_is_listed_as_a_warning(tmp_path: Path) -> None:
    path = packed(tmp_path, spoiled_rows(), _7=b"no picture")

    told = [(i.line, i.code, i.severity, i.message.rsplit(". ", 1)[-1]) for i in checked(path, "mask").issues]

    assert sorted(told) == [
        (2, "invalid_json", "warning", "This row is left out."),
        (4, "label_missing", "warning", "This row is left out."),
        (6, "missing_media", "warning", "The cell counts as missing."),
        (8, "unreadable_media", "warning", "The cell counts as missing."),
    ]


def test_a_row_that_masking_leaves_empty_is_left_out(tmp_path: Path) -> None:
    rows = rows_of()
    rows[4]["text"] = None

    report = checked(packed(tmp_path, list(rows), _4=b"no picture"), "mask")

    assert (report.bad.skipped, report.bad.masked) == ({5}, {"image": frozenset()})


def test_more_bad_rows_than_allowed_fail_with_all_of_them_as_errors(tmp_path: Path) -> None:
    path = packed(tmp_path, spoiled_rows())

    few, many = checked(path, "skip", 3 / 12), checked(path, "skip", 0.24)

    assert (few.errors, len(few.bad)) == ([], 3)
    assert [i.code for i in many.errors] == [
        "invalid_json",
        "missing_media",
        "label_missing",
        "too_many_bad_rows",
    ]
    assert "3 of 12 rows are bad (25.00%), and max_bad_fraction allows 24.00%" in many.errors[-1].message
    assert not many.bad


def test_without_being_asked_nothing_is_left_out(tmp_path: Path) -> None:
    path = packed(tmp_path, spoiled_rows())

    report = checked(path, "fail")

    assert (len(report.errors), len(report.bad)) == (3, 0)
    with ExitStack() as files, pytest.raises(EngineError, match="not JSON"):
        opened(files, path, report)


def test_a_class_that_only_bad_rows_were_trained_on_is_unknown_to_the_others(tmp_path: Path) -> None:
    rows = rows_of()
    rows[0] |= {"label": "c", "image_file_name": "gone.png"}
    rows[1] |= {"label": "c", "split": "test"}

    report = checked(packed(tmp_path, list(rows)), "skip")

    assert (report.classes, report.bad.skipped, report.errors) == (["a", "b"], {1, 2}, [])
    assert {(i.line, i.code) for i in report.issues} == {(1, "missing_media"), (2, "unknown_class")}


def test_rows_are_not_left_out_where_a_quote_swallowed_some_that_nobody_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + 'a,x\nb,y\n"c,x\n' + "d,y\ne,x\n" * 20)

    report = checked(path, "skip", 1.0)

    assert next((i.line, i.code) for i in report.errors) == (4, "schema_mismatch")
    assert not report.bad


def test_a_file_of_bad_rows_alone_leaves_nothing_to_use(tmp_path: Path) -> None:
    rows = [{**row, "label": None} for row in rows_of()]

    training = checked(packed(tmp_path, list(rows)), "skip", 1.0)
    validation = checked(
        packed(tmp_path, list(rows)), "skip", 1.0, "validation", trained=Report(0, {}, ["a"])
    )

    assert training.errors
    assert validation.errors


def test_a_column_that_no_tower_reads_may_be_wrong_in_training_too(tmp_path: Path) -> None:
    rows: Rows = [{"text": f"row {n}", "label": "ab"[n % 2], "price": "?"} for n in range(8)]
    schema = {"columns": {"price": {"type": "number"}}}
    spec = Multimodal.model_validate({"towers": {"text": {"encoder": "a/b"}}, "schema": schema})

    with ExitStack() as files:
        splits = open_splits(files, spec, zip_of(tmp_path / "t.zip", rows, {}), None, None, 0)

    assert len(splits.all) == 8


@given(
    st.frozensets(st.integers(1, 60)), st.dictionaries(st.text(max_size=3), st.frozensets(st.integers(1, 60)))
)
def test_a_decision_is_the_same_after_it_was_stored(
    skipped: frozenset[int], masked: dict[str, frozenset[int]]
) -> None:
    stored = json.loads(json.dumps(BadRows(skipped, masked).spelled()))

    read = BadRows.read(stored)

    assert read.skipped == skipped
    assert read.masked == {name: lines for name, lines in masked.items() if lines}


def test_the_task_is_told_by_the_rows_that_are_left(tmp_path: Path) -> None:
    rows = rows_of()
    for n in (0, 2, 4):
        rows[n] |= {"label": ["a", "b"]}
    path = packed(tmp_path, list(rows))

    report = checked(path, "mask")
    with ExitStack() as files:
        splits = opened(files, path, report)

    assert (report.task, report.bad.skipped, report.errors) == ("classification", {1, 3, 5}, [])
    assert splits.goal.task == report.task


def test_damage_that_comes_in_runs_is_stored_in_few_characters() -> None:
    assert BadRows(frozenset({3, *range(5, 10**5)})).spelled() == {"skipped": "3,5-99999", "masked": {}}

"""Labels that are texts to be written: what a check says of them, and which rows are held out."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from domain.manifest import Code, ColumnType
from domain.specs import Multimodal
from domain.tasks import Task
from engine.data.check import Report, check
from engine.data.lengths import ANSWER, text_limits
from engine.data.manifest import open_dataset
from engine.data.splits import open_splits
from support.language import tiny_language_model

SPEC = Multimodal.model_validate(
    {"family": "vlm", "language_model": {"model": "a/b", "max_length": 5, "max_answer_length": 4}}
)


def table(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(count: int, **last: Any) -> list[dict[str, Any]]:
    rows = [{"question": f"what is it ? {n}", "label": f"shape {n}"} for n in range(count)]
    return [*rows[:-1], {**rows[-1], **last}]


def checked(path: Path, spec: Multimodal = SPEC, language: Path | None = None) -> Report:
    with open_dataset(path) as dataset:
        types = {name: column.type for name, column in dataset.schema.columns.items()}
        limits = text_limits(spec, types, lambda _: language) if language else {}
        return check(dataset, spec, text_limits=limits)


def test_answers_that_all_differ_are_no_classes(tmp_path: Path) -> None:
    report = checked(table(tmp_path, *asked(12)))

    assert (report.task, report.classes, list(report.issues)) == (Task.GENERATION, [], [])


def test_one_answer_to_everything_may_be_learned(tmp_path: Path) -> None:
    rows = [{**row, "label": "a shape"} for row in asked(12)]

    assert checked(table(tmp_path, *rows)).errors == []


@pytest.mark.parametrize(
    ("label", "code"),
    [
        (None, Code.LABEL_MISSING),
        ("  ", Code.LABEL_TYPE_MISMATCH),
        (["a", "b"], Code.LABEL_TYPE_MISMATCH),
        ("x" * 100_001, Code.LABEL_TYPE_MISMATCH),
        ("half \ud800", Code.ENCODING_ERROR),
    ],
)
def test_what_is_no_text_to_be_written_is_told_by_its_line(tmp_path: Path, label: Any, code: Code) -> None:
    (issue,) = checked(table(tmp_path, *asked(12, label=label))).errors

    assert (issue.code, issue.line) == (code, 12)


def test_long_questions_and_answers_are_warned_of_with_what_to_raise(tmp_path: Path) -> None:
    language = tiny_language_model(tmp_path / "language")
    rows = asked(12, question="what is it ? what is it", label="a red shape with three corners")

    report = checked(table(tmp_path, *rows), language=language)

    found = {
        issue.column: issue
        for issue in report.issues
        if issue.code == Code.TEXT_TOO_LONG and issue.line == 12
    }
    assert report.errors == []
    assert "language_model.max_length" in found["question"].message
    assert "only the first 3 tokens" in found[None].message
    assert "max_answer_length" in found[None].message


def test_a_language_model_that_is_not_there_measures_nothing(tmp_path: Path) -> None:
    assert text_limits(SPEC, {"question": ColumnType.TEXT}, lambda _: tmp_path) == {}
    assert ANSWER == ""


def test_rows_are_held_out_though_each_answer_is_the_only_one(tmp_path: Path) -> None:
    with ExitStack() as files:
        splits = open_splits(files, SPEC, table(tmp_path, *asked(40)), None, None, 0)

    assert (len(splits.train), len(splits.validation)) == (36, 4)
    assert splits.goal.classes == []
    assert len(set(splits.targets.tolist())) == 40

"""What labels mean: the task that they tell, the targets that they become, and what is wrong with them."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from domain.errors import EngineError
from domain.manifest import Schema
from domain.specs import Multimodal
from domain.tasks import Task
from engine.data.check import Report, check
from engine.data.manifest import open_dataset
from engine.data.splits import Splits, open_splits


def written(folder: Path, labels: list[Any], splits: list[str] | None = None) -> Path:
    rows = [
        {"text": f"row {n}", "label": label} | ({"split": splits[n]} if splits else {})
        for n, label in enumerate(labels)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def checked(path: Path, task: str = "auto", **options: Any) -> Report:
    spec = Multimodal.model_validate({"task": task} | options)
    with open_dataset(path, schema=Schema(), filename=path.name) as dataset:
        return check(dataset, spec)


def opened(path: Path, task: str = "auto") -> Splits:
    with ExitStack() as files:
        return open_splits(files, Multimodal.model_validate({"task": task}), path, None, None, 0)


def found(report: Report) -> list[tuple[int | None, str]]:
    return [(issue.line, str(issue.code)) for issue in report.errors]


def test_more_names_of_classes_than_a_job_can_bear_are_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.readings.MOST_NAMES", 200)

    report = checked(written(tmp_path, ["x" * 100, "y" * 100, "z"] * 4))

    assert found(report) == [(None, "label_type_mismatch")]
    assert report.classes == []


def test_a_long_list_of_short_names_in_a_csv_is_good(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"row {n},{'a;' * 150}{'bc'[n % 2]}\n" for n in range(8)))

    report = checked(path, "multilabel")

    assert (report.classes, found(report)) == (["a", "b", "c"], [])


@pytest.mark.parametrize("labels", [["a", "b", "x" * 201], [["a"] * 200, ["b"], ["a", "x" * 201]]])
def test_a_text_is_no_class(tmp_path: Path, labels: list[Any]) -> None:
    report = checked(written(tmp_path, labels * 2))

    assert found(report) == [(3, "label_type_mismatch"), (6, "label_type_mismatch")]
    assert report.classes == ["a", "b"]


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["a", "b", "c"], "classification"),
        ([1, 2, 3], "classification"),
        ([True, False, True], "classification"),
        ([1, 2.5, 3], "regression"),
        ([0.5, 1.5, None], "regression"),
        ([0.5, 1.5, "n/a"], "regression"),
        (["a", "b", 0.5], "classification"),
        ([["a"], [], ["a", "b"]], "multilabel"),
        (["a", "b", ["c"]], "classification"),
    ],
)
def test_the_task_is_told_by_what_most_labels_are(tmp_path: Path, labels: list[Any], task: str) -> None:
    assert checked(written(tmp_path, labels * 4)).task == task


@pytest.mark.parametrize(
    ("cells", "task", "classes"),
    [
        ("a;b b c;a a", "multilabel", ["a", "b", "c"]),
        # Few rows have two: what they name are the labels of others.
        ("a b a;b c a b c", "multilabel", ["a", "b", "c"]),
        ("a b c a", "classification", ["a", "b", "c"]),
        ("1.5 2 3.25 4", "regression", []),
    ],
)
def test_csv_tells_the_task_too(tmp_path: Path, cells: str, task: str, classes: list[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"row {n},{cell}\n" for n, cell in enumerate(cells.split())))

    report = checked(path)

    assert (report.task, report.classes, report.issues) == (task, classes, [])


def test_a_csv_row_without_any_label_is_told_how_to_say_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,labels\nx,a;b\ny,a\nz,\nw,b\n")

    report = checked(path)

    assert (report.task, found(report)) == ("multilabel", [(4, "label_missing")])
    assert "write ; if it has none" in report.errors[0].message
    path.write_text("text,labels\nx,a;b\ny,a\nz,;\nw,b\n")
    assert found(checked(path)) == []


def test_whole_numbers_that_are_amounts_are_suspected(tmp_path: Path) -> None:
    (issue,) = checked(written(tmp_path, list(range(30)))).issues

    assert (issue.code, issue.severity, issue.column) == ("too_few_examples", "warning", "label")
    assert issue.message.startswith("30 of 30 classes have one training row each")
    assert "regression" in issue.message
    assert checked(written(tmp_path, list(range(30)) * 2)).issues == []
    assert checked(written(tmp_path, list(range(30))), "regression").issues == []


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_csv_with_other_separators_is_told_from_a_table_of_one_column(
    tmp_path: Path, mark: str, word: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"text{mark}label\nx{mark}a\ny{mark}b\n")

    report = checked(path)

    assert found(report) == [(1, "schema_mismatch")]
    assert f"with commas, not {word}" in report.errors[0].message


def test_a_class_of_its_own_may_hold_a_semicolon(tmp_path: Path) -> None:
    report = checked(written(tmp_path, ["a;b", "c"] * 4))

    assert (report.task, report.classes) == (Task.CLASSIFICATION, ["a;b", "c"])


@pytest.mark.parametrize(
    ("task", "label", "code"),
    [
        ("classification", 0.5, "label_type_mismatch"),
        ("classification", ["a"], "label_type_mismatch"),
        ("multilabel", 0.5, "label_type_mismatch"),
        ("multilabel", ["a", 0.5], "label_type_mismatch"),
        ("multilabel", [["a"]], "label_type_mismatch"),
        ("regression", "tall", "label_type_mismatch"),
        ("regression", "nan", "label_type_mismatch"),
        ("regression", ["a"], "label_type_mismatch"),
        ("regression", True, "label_type_mismatch"),
        ("regression", 1e300, "label_type_mismatch"),
        ("regression", None, "label_missing"),
        ("multilabel", "", "label_missing"),
    ],
)
def test_a_label_that_the_task_cannot_read_is_named_by_its_line(
    tmp_path: Path, task: str, label: Any, code: str
) -> None:
    good = {"classification": ["a", "b"], "multilabel": [["a"], ["b", "a"]], "regression": [1, 2.5]}[task] * 4

    path = written(tmp_path, [*good, label])

    assert found(checked(path, task)) == [(9, code)]
    with pytest.raises(EngineError) as refused:
        opened(path, task)
    assert refused.value.code == code


def test_a_list_with_a_class_that_no_training_row_has_is_unknown(tmp_path: Path) -> None:
    path = written(tmp_path, [["a"], ["b"], ["a", "b"], [], ["a", "z"]], ["train"] * 4 + ["test"])

    assert found(checked(path)) == [(5, "unknown_class")]
    with pytest.raises(EngineError, match="line 5: class 'z'"):
        opened(path)


@pytest.mark.parametrize("labels", [[2.5] * 8, [["a", "b"], ["b", "a"]] * 4, [[]] * 8])
def test_rows_that_all_say_the_same_have_nothing_to_teach(tmp_path: Path, labels: list[Any]) -> None:
    assert found(checked(written(tmp_path, labels))) == [(None, "single_class")]


def test_a_spec_that_does_not_fit_the_labels_is_an_issue_of_the_spec(tmp_path: Path) -> None:
    report = checked(written(tmp_path, [1.5, 2.5] * 4), loss={"class_weights": "balanced"})

    assert [(issue.code, issue.param) for issue in report.errors] == [
        ("label_type_mismatch", "multimodal.loss.class_weights")
    ]


def test_a_weight_of_a_class_that_there_is_not_is_an_issue_of_the_spec(tmp_path: Path) -> None:
    report = checked(written(tmp_path, ["a", "b"] * 4), loss={"class_weights": {"c": 2.0}})

    assert [(issue.code, issue.param) for issue in report.errors] == [
        ("unknown_class", "multimodal.loss.class_weights")
    ]


def test_several_labels_become_a_row_of_a_table(tmp_path: Path) -> None:
    path = written(tmp_path, [["b", "a", "b"], [], [3], ["a"]], ["train", "train", "train", "validation"])

    splits = opened(path)

    assert splits.goal.classes == ["3", "a", "b"]
    assert splits.targets.tolist() == [
        [False, True, True],
        [False, False, False],
        [True, False, False],
        [False, True, False],
    ]


def test_numbers_are_standardised_by_the_training_rows_alone(tmp_path: Path) -> None:
    path = written(tmp_path, [1.5, 2.5, 3.5, 100], ["train", "train", "train", "validation"])

    splits = opened(path)

    assert splits.goal.classes == []
    scale = splits.goal.scale
    assert scale is not None
    assert (scale.mean, scale.std) == pytest.approx((2.5, (2 / 3) ** 0.5))
    torch.testing.assert_close(
        scale.undone(splits.targets), torch.tensor([1.5, 2.5, 3.5, 100], dtype=torch.float64)
    )


def test_a_tenth_is_held_out_of_numbers_and_of_lists(tmp_path: Path) -> None:
    numbers = opened(written(tmp_path, [n + 0.5 for n in range(60)]))
    lists = opened(written(tmp_path, [["a", f"{n % 3}"] for n in range(59)] + [["only here"]]))

    assert len(numbers.validation) == len(lists.validation) == 6
    assert all("only here" not in str(example.label) for example in lists.validation)

"""A check and a training read a file alike, however it is stored, and say the same in whatever order it is read."""

import json
import zipfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from domain.manifest import Code
from domain.specs import Multimodal
from domain.tasks import Task
from engine.data import manifest
from engine.data.balance import class_imbalance, lone_classes
from engine.data.check import check
from engine.data.ledger import Tally
from engine.data.manifest import open_dataset
from engine.data.splits import open_splits

LENIENT = Multimodal.model_validate({"on_bad_row": "skip", "max_bad_fraction": 0.5})


def stored(folder: Path, content: str) -> Path:
    """As the service keeps an upload: under an id, without its name."""
    path = folder / "file-abc"
    path.write_text(content)
    return path


def lines(count: int) -> str:
    return "".join(json.dumps({"text": f"row {n}", "label": "ab"[n % 2]}) + "\n" for n in range(count))


def test_a_training_reads_a_stored_file_by_its_uploaded_name_as_its_check_did(tmp_path: Path) -> None:
    path = stored(tmp_path, "no json, at all\n" + lines(10))
    with open_dataset(path, filename="rows.jsonl") as dataset:
        report = check(dataset, LENIENT)

    with ExitStack() as files:
        splits = open_splits(
            files,
            LENIENT,
            path,
            None,
            None,
            0,
            {"training_file": report.bad},
            names={"training_file": "rows.jsonl"},
        )

        assert len(splits.all) == 10
        assert splits.skipped == 1


def test_a_table_in_a_zip_may_have_as_many_bytes_as_a_bare_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("metadata.jsonl", lines(500))
    # One that a medium may not have.
    monkeypatch.setattr("engine.data.archive.MAX_MEMBER_BYTES", 1000)

    with open_dataset(path) as dataset:
        assert (len(dataset.rows), dataset.issues) == (500, [])

    monkeypatch.setattr(manifest, "MAX_TABLE_BYTES", 1000)
    with open_dataset(path) as dataset:
        assert [issue.code for issue in dataset.issues] == [Code.TOO_LARGE]


@pytest.mark.parametrize("tie", [["b", "a", "c"], ["c", "b", "a"], ["a", "c", "b"]])
def test_classes_with_equally_many_rows_are_named_in_one_order(tie: list[str]) -> None:
    rare = Tally(Counter({"x": 100} | dict.fromkeys(tie, 1)), 0)
    lone = Tally(Counter({f"{name}{n}": 1 for n in range(5) for name in tie}), 0)

    (imbalance,) = class_imbalance(rare, Task.CLASSIFICATION, "label")
    (few,) = lone_classes(lone, Task.CLASSIFICATION, "label")

    assert imbalance.value == "a"
    assert "few of 'a' (1), 'b' (1), 'c' (1)" in imbalance.message
    assert few.value == "a0"

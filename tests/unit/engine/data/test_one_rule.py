"""A check and a training read a file alike, however it is stored, and say the same in whatever order it is read."""

import json
import os
import subprocess
import sys
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

#: Opens a zip whose table has so many rows of a kilobyte, and prints how many those are and the peak of memory.
OPENED = """
import json, random, re, sys, zipfile
from pathlib import Path
from engine.data.manifest import open_dataset
path, rows = Path(sys.argv[1]), int(sys.argv[2])
with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
    with out.open("metadata.jsonl", "w", force_zip64=True) as table:
        for n in range(rows):
            table.write(json.dumps({"text": f"{random.getrandbits(3000):0900x}", "label": "ab"[n % 2]}).encode())
            table.write(b"\\n")
with open_dataset(path) as dataset:
    print(len(dataset.rows), re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""

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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_a_table_in_a_zip_twenty_times_as_long_takes_no_more_memory(tmp_path: Path) -> None:
    peaks = []
    for rows in (3000, 60_000):
        given = [sys.executable, "-c", OPENED, str(tmp_path / "t.zip"), str(rows)]
        told = {**os.environ, "PYTHONPATH": os.getcwd()}
        answer = subprocess.run(given, env=told, capture_output=True, text=True, check=True).stdout
        count, peak = map(int, answer.split())
        assert count == rows
        peaks.append(peak // 1024)

    # The longer table has 55 MB.
    assert peaks[1] - peaks[0] < 15, peaks


@pytest.mark.parametrize("tie", [["b", "a", "c"], ["c", "b", "a"], ["a", "c", "b"]])
def test_classes_with_equally_many_rows_are_named_in_one_order(tie: list[str]) -> None:
    rare = Tally(Counter({"x": 100} | dict.fromkeys(tie, 1)), 0)
    lone = Tally(Counter({f"{name}{n}": 1 for n in range(5) for name in tie}), 0)

    (imbalance,) = class_imbalance(rare, Task.CLASSIFICATION, "label")
    (few,) = lone_classes(lone, Task.CLASSIFICATION, "label")

    assert imbalance.value == "a"
    assert "few of 'a' (1), 'b' (1), 'c' (1)" in imbalance.message
    assert few.value == "a0"

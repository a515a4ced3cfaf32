"""However many issues there are: all are told, in order, and few of them are in memory."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from domain.manifest import Issue
from engine.data import spool
from engine.data.issues import Issues

FOUND = [
    Issue("label_missing", "third", 3, "label"),
    Issue("duplicate_row", "a warning", 1, severity="warning"),
    Issue("empty_file", "the whole file", value="half \udc80 of a pair"),
    Issue("label_missing", "first", 1, "label"),
    Issue("label_missing", "third again", 3, "text", param="a.b"),
]

#: Checks rows of which each is bad, and prints how many issues there were and the peak of memory in megabytes.
CHECKED = """
import json, re, sys
from pathlib import Path
from domain.specs import Multimodal
from engine.data.check import check
from engine.data.manifest import open_dataset
path, rows, bad = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "bad"
with path.open("w") as out:
    for n in range(rows):
        out.write(json.dumps({"text": f"row {n}", "label": [0.5] if bad and n else "ab"[n % 2]}) + "\\n")
with open_dataset(path) as dataset:
    report = check(dataset, Multimodal.model_validate({"task": "classification"}))
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(report.issues.errors, int(peak[1]) // 1024)
"""


@pytest.mark.parametrize("in_memory", [0, 10_000])
def test_issues_are_told_as_they_were_found_and_in_the_order_in_which_they_are_shown(
    in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", in_memory)
    issues = Issues(FOUND[:2])
    assert len(list(issues)) == 2
    issues += FOUND[2:]

    assert list(issues) == FOUND
    assert issues == FOUND
    assert [issue.message for issue in issues.ordered()] == [
        "the whole file",
        "first",
        "third",
        "third again",
        "a warning",
    ]
    assert [issue.message for issue in issues.ordered("warning")] == ["a warning"]
    assert (issues.errors, issues.counts["error", "label_missing"]) == (4, 3)
    assert (issues[-1], issues[1:3]) == (FOUND[-1], FOUND[1:3])


def test_no_issues_are_false_and_equal_to_an_empty_list() -> None:
    assert not Issues()
    assert Issues() == []
    assert list(Issues().ordered()) == []


def measured(path: Path, rows: int, word: str) -> tuple[int, int]:
    given = [sys.executable, "-c", CHECKED, str(path), str(rows), word]
    told = {**os.environ, "PYTHONPATH": os.getcwd()}
    answer = subprocess.run(given, env=told, capture_output=True, text=True, check=True).stdout
    errors, peak = map(int, re.findall(r"\d+", answer))
    return errors, peak


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_rows_that_are_all_bad_take_little_more_memory_than_good_ones(tmp_path: Path) -> None:
    rows = 100_000

    good, bad = (measured(tmp_path / "rows.jsonl", rows, word) for word in ("good", "bad"))

    assert (good[0], bad[0]) == (0, rows)
    # As objects they took 50 MB.
    assert bad[1] - good[1] < 25, (good, bad)

"""Tables that are longer than memory: what is kept of each row, and that it is enough."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.manifest import ColumnType
from engine.data import spool
from engine.data.hashes import repeats
from engine.data.raw_rows import Embedded, RawRow, RawRows
from engine.data.spool import Spool

#: Writes a table of text and labels, checks it, and prints how many rows there were and the peak of memory.
CHECKED = """
import json, re, sys
from pathlib import Path
from domain.specs import Multimodal
from engine.data.check import check
from engine.data.manifest import open_dataset
path, rows = Path(sys.argv[1]), int(sys.argv[2])
with path.open("w") as out:
    for n in range(rows):
        row = {"id": f"r{n}", "text": f"row {n} says {n * 7919 % 10007}", "price": n / 7, "label": f"c{n // 5 % 10}"}
        out.write(json.dumps({**row, "split": ("train", "train", "train", "validation", "test")[n % 5]}) + "\\n")
with open_dataset(path) as dataset:
    report = check(dataset, Multimodal())
# Not ru_maxrss, which a process inherits from the one that started it.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(report.rows, len(report.issues), int(peak[1]) // 1024)
"""


def measured(path: Path, rows: int) -> tuple[int, int, int]:
    """Rows, issues and peak megabytes of a check in a process of its own."""
    given = [sys.executable, "-c", CHECKED, str(path), str(rows)]
    answer = subprocess.run(
        given, env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True, check=True
    )
    count, issues, peak = map(int, answer.stdout.split())
    return count, issues, peak


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")


@pytest.mark.parametrize("in_memory", [0, 10, 10_000])
def test_what_is_put_into_a_spool_is_read_back_in_any_order(
    in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", in_memory)
    pieces = [bytes([n]) * n for n in range(20)]
    held = Spool()

    places = [held.add(piece) for piece in pieces]
    held.seal()

    order = random.Random(0).sample(range(20), 20)
    assert [held[places[n]] for n in order] == [pieces[n] for n in order]
    assert len(held) == 20
    held.close()


def test_a_raw_row_comes_back_as_it_was_appended() -> None:
    cells = {
        "text": "ü \udcff",
        "many": [1, None, {"a": 1.5}],
        "flag": True,
        "picture": Embedded(7, 12, ColumnType.IMAGE, "a.png"),
        "blob": Embedded(8, 3, None),
    }
    rows = RawRows()

    rows.append(RawRow(3, cells))
    rows.seal()

    assert list(rows) == [RawRow(3, cells)]
    assert rows[-1] == rows[0]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_each_repeat_names_the_first_that_is_equal(values: list[int]) -> None:
    found = list(repeats(np.array(values, np.uint64)))

    assert found == [(n, values.index(v)) for n, v in enumerate(values) if values.index(v) < n]


@ON_LINUX
def test_a_table_thirty_times_as_long_takes_little_more_memory(tmp_path: Path) -> None:
    short, long = measured(tmp_path / "short.jsonl", 1_000), measured(tmp_path / "long.jsonl", 30_000)

    assert long[:2] == (30_000, 0)
    # As Python objects these rows took 44 MB more.
    assert long[2] - short[2] < 22


@ON_LINUX
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_rows_are_checked_in_400_megabytes(tmp_path: Path) -> None:
    rows, issues, peak = measured(tmp_path / "rows.jsonl", 1_000_000)

    assert (rows, issues) == (1_000_000, 0)
    assert peak < 400

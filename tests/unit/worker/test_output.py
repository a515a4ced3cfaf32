"""What a child prints: kept to its end, never more than a limit, and no reason for the child to fail."""

import os
import subprocess
import sys
from pathlib import Path

from worker.output import Output


def printing(program: str, path: Path, most: int) -> int:
    output = Output(path, most)
    with output.writable() as said:
        done = subprocess.run([sys.executable, "-c", program], stdout=said, stderr=said, check=False)
    output.finish()
    return done.returncode


def test_all_that_a_child_prints_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "1.log"

    printing("import sys; print('out', flush=True); print('err', file=sys.stderr)", path, 1000)

    assert path.read_text() == "out\nerr\n"


def test_a_child_that_prints_without_end_keeps_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "1.log"

    code = printing("for n in range(200_000): print('line', n)", path, 50_000)

    kept = path.read_text()
    assert code == 0
    assert len(kept) <= 50_000
    assert kept.startswith("[...")
    lines = kept.splitlines()[1:]
    assert lines == [f"line {n}" for n in range(200_000 - len(lines), 200_000)]


def test_much_that_is_printed_at_once_leaves_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    program = "import os; [os.write(1, b''.join(b'line %d\\n' % n for n in part)) for part in (range(4000), range(4000, 8000))]"

    printing(program, path, 50_000)

    lines = path.read_text().splitlines()[1:]
    assert lines == [f"line {n}" for n in range(8000 - len(lines), 8000)]


def test_a_line_longer_than_the_limit_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "1.log"

    printing("print('x' * 1_000_000)", path, 1000)

    assert 0 < path.stat().st_size <= 1000


def test_a_log_that_cannot_be_written_does_not_trouble_the_child(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert printing("print('x' * 1_000_000)", tmp_path / "file" / "1.log", 1000) == 0


def test_what_is_printed_before_the_next_job_is_in_the_log_of_the_one_before(tmp_path: Path) -> None:
    logs, rounds = (tmp_path / "0.log", tmp_path / "1.log"), 200
    output = Output(logs[0])
    with output.writable() as said:
        for n in range(rounds):
            output.switch(logs[n % 2])
            os.write(said, f"{n % 2}\n".encode())
    output.finish()

    assert [path.read_text() for path in logs] == ["0\n" * (rounds // 2), "1\n" * (rounds // 2)]

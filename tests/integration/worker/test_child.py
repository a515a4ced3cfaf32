"""A child without a job: what ends it, and what must not. Real processes, no database."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.stack import ROOT, until
from worker.process import ChildProcess
from worker.wire import Lines


@pytest.fixture
def child(tmp_path: Path) -> Iterator[ChildProcess]:
    made = ChildProcess(tmp_path / "child.log")
    until(psutil.Process(made.pid).num_threads, lambda n: n > 1, limit_s=20)  # it listens
    yield made
    made.close()


def exit_code(child: ChildProcess) -> int:
    """Of a child that ends by itself."""
    until(lambda: child.is_alive, lambda alive: not alive, limit_s=10)
    return child.end()


def test_a_lease_that_nobody_prolongs_ends_a_child(child: ChildProcess) -> None:
    child.tell(lease=time.monotonic() + 0.2)

    assert exit_code(child) == -signal.SIGALRM


def test_a_lease_that_was_taken_back_ends_nothing(child: ChildProcess) -> None:
    child.tell(lease=time.monotonic() + 1.0)
    child.tell(lease=None)

    with pytest.raises(psutil.TimeoutExpired):
        psutil.Process(child.pid).wait(2.0)
    assert child.is_alive


def test_nothing_is_begun_of_a_job_whose_lease_is_over_when_it_is_heard_of(child: ChildProcess) -> None:
    child.tell(job="check_1", lease=time.monotonic() - 0.1)

    assert child.listen() is None
    assert exit_code(child) == -signal.SIGALRM


def test_an_idle_child_ends_with_its_socket(child: ChildProcess) -> None:
    child.sock.shutdown(2)

    assert exit_code(child) == -signal.SIGKILL


def test_a_frozen_child_does_not_freeze_its_keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.process._DEAF_S", 1)
    child = ChildProcess(tmp_path / "child.log")
    os.kill(child.pid, signal.SIGSTOP)
    until(lambda: psutil.Process(child.pid).status(), lambda s: s == psutil.STATUS_STOPPED, limit_s=5)

    assert child.tell(job="x" * 2**24) is False
    child.close()


def test_a_message_of_megabytes_comes_whole() -> None:
    lines = Lines()
    data = b'{"say": "' + b"x" * 100_000 + b'"}\n{"say": "next"}\n{"say": "ha'
    heard = [m for i in range(0, len(data), 4096) for m in lines.feed(data[i : i + 4096])]

    assert [len(m["say"]) for m in heard] == [100_000, 4]
    assert lines.feed(b'lf"}\n') == [{"say": "half"}]


def test_a_child_outlives_no_killed_keeper(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from worker.process import ChildProcess;"
        "c = ChildProcess(Path(sys.argv[1])); print(c.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "log")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as keeper:
        assert keeper.stdout is not None
        child = psutil.Process(int(keeper.stdout.readline()))
        keeper.kill()

        child.wait(10)

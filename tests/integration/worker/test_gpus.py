"""One training a GPU: with real processes and locks, and made-up GPUs."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import func, select

from db.tables import Metric
from domain.job import Lane, State
from support.datasets import tiny_av
from support.encoders import IMAGE, tiny_encoders
from support.stack import ROOT, Stack, kill_tree, stack
from worker import gpus

ONE, TWO = "GPU-11111111-aaaa", "GPU-22222222-bbbb"

#: Takes a GPU, says which, and with `fork` has a child of its own that outlives it.
_PROGRAM = """
import json, os, sys
from pathlib import Path
from worker.gpus import take_one
def say(**words): print(json.dumps(words), flush=True)
uuid = take_one(sys.argv[2].split(","), Path(sys.argv[1]), waits=lambda: say(waits=True), should_stop=lambda: None)
loader = os.fork() if "fork" in sys.argv else None
if loader != 0:
    say(uuid=uuid, loader=loader)
sys.stdin.read()
"""


class Trainers:
    """Processes that each train on a GPU."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *uuids: str, fork: bool = False) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(self._folder), ",".join(uuids), *(["fork"] if fork else [])],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def stop(self) -> None:
        for process in self._processes:
            kill_tree(process.pid, signal.SIGKILL)
            process.communicate()


def said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


@pytest.fixture
def trainers(tmp_path: Path) -> Iterator[Trainers]:
    made = Trainers(tmp_path / "locks")
    yield made
    made.stop()


def test_a_gpu_is_one_trainings_until_it_is_killed(trainers: Trainers) -> None:
    first, second = trainers.start(ONE), None
    assert said(first)["uuid"] == ONE
    second = trainers.start(ONE)
    assert said(second) == {"waits": True}

    first.kill()

    assert said(second)["uuid"] == ONE


def test_a_training_takes_a_gpu_that_is_free(trainers: Trainers) -> None:
    assert said(trainers.start(ONE, TWO))["uuid"] == ONE
    assert said(trainers.start(ONE, TWO))["uuid"] == TWO
    assert said(trainers.start(ONE, TWO)) == {"waits": True}


def test_what_was_forked_from_a_training_holds_no_gpu_after_its_death(trainers: Trainers) -> None:
    first = trainers.start(ONE, fork=True)
    loader = psutil.Process(said(first)["loader"])

    first.kill()
    first.wait()

    assert loader.is_running()
    assert said(trainers.start(ONE))["uuid"] == ONE
    loader.kill()


def test_whoever_waits_for_a_gpu_can_be_stopped(trainers: Trainers, tmp_path: Path) -> None:
    assert said(trainers.start(ONE))["uuid"] == ONE
    told: list[str] = []
    asked = iter([None, None, "cancel"])

    uuid = gpus.take_one(
        [ONE], tmp_path / "locks", waits=lambda: told.append("waits"), should_stop=lambda: next(asked)
    )

    assert uuid is None
    assert told == ["waits"]


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        (None, [ONE, TWO]),
        ("", []),
        ("-1", []),
        ("1", [TWO]),
        ("1,0", [TWO, ONE]),
        ("1,7,0", [TWO]),
        (f"{TWO}", [TWO]),
        ("GPU-2", [TWO]),
        ("GPU-", []),
        ("GPU-none", []),
        ("MIG-abc, 0", ["MIG-abc", ONE]),
    ],
)
def test_a_worker_sees_the_gpus_that_cuda_would_show_it(asked: str | None, seen: list[str]) -> None:
    assert gpus.visible([ONE, TWO], asked) == seen


def test_a_name_with_slashes_stays_in_the_folder(tmp_path: Path) -> None:
    gpus.take_one(["MIG-GPU-1/../../0"], tmp_path / "locks", waits=lambda: None, should_stop=lambda: None)

    assert [p.parent for p in tmp_path.rglob("*.lock")] == [tmp_path / "locks"]


@pytest.mark.slow
def test_two_workers_with_one_gpu_train_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Parts of a GPU are believed without a driver, and a torch without CUDA does not care.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-made-up")
    tiny_encoders(tmp_path / "encoders")
    with stack(tmp_path, encoders=tmp_path / "encoders") as plait:
        for lane in (Lane.CPU, Lane.TRAIN, Lane.TRAIN):
            plait.worker(lane)
        data = plait.upload(tiny_av(tmp_path))
        hyper = {"n_epochs": 60, "batch_size": 8, "logging_steps": 1}
        spec = {"towers": {"image": {"encoder": IMAGE}}, "hyperparameters": hyper}

        ids = [plait.submit(data, spec) for _ in range(2)]

        spans = sorted(_trained(plait, job_id) for job_id in ids)
        assert spans[0][1] <= spans[1][0]
        names = [event.name for job_id in ids for event in plait.history(job_id)]
        assert names.count("training.waits_for_gpu") == 1
        assert {plait.job(job_id).deaths for job_id in ids} == {0}


def _trained(plait: Stack, job_id: str) -> tuple[float, float]:
    """When the job's first step was told, and when it ended."""
    job = plait.until(job_id, lambda job: job.finished_at is not None)
    assert job.state == State.SUCCEEDED, plait.explain(job_id)
    with plait.database.reading() as session:
        steps = select(func.min(Metric.created_at)).where(Metric.job == job_id)
        return session.scalars(steps).one(), float(job.finished_at or 0)

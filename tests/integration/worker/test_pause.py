"""Children that are to stop: a training that is paused and goes on, one that is frozen, a check that hangs."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from db import jobs
from db.tables import Job
from domain.job import Kind, Lane, Stage, State
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, tiny_encoders
from support.stack import TENANT, Stack, children_of, stack, until
from worker import hold
from worker.keeper import Keeper

LONG: dict[str, Any] = {
    "towers": {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO, "max_seconds": 0.5}},
    "fusion": {"dim": 32},
    "hyperparameters": {"n_epochs": 5000, "batch_size": 8, "save_steps": 50, "eval_steps": 200},
}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a worker of the cpu lane; each test has its own of the train lane."""
    encoders = tmp_path_factory.mktemp("encoders")
    tiny_encoders(encoders)
    with stack(tmp_path_factory.mktemp("stack"), encoders=encoders) as made:
        made.worker(Lane.CPU)
        yield made


@pytest.fixture
def job_id(plait: Stack, tmp_path: Path) -> str:
    return plait.submit(plait.upload(tiny_av(tmp_path)), LONG)


def trains(job: Job) -> bool:
    return job.state == State.RUNNING and job.stage == Stage.RUN


def is_paused(job: Job) -> bool:
    return job.state == State.PAUSED


@pytest.mark.slow
def test_a_paused_training_goes_on_from_the_checkpoint_it_was_paused_with(plait: Stack, job_id: str) -> None:
    worker = plait.worker(Lane.TRAIN)
    before = plait.until(job_id, lambda job: trains(job) and job.checkpoint_ref is not None)

    plait.pause(job_id)

    paused = plait.until(job_id, is_paused, limit_s=20)
    assert (paused.attempt, paused.deaths) == (before.attempt - 1, 0)
    assert paused.checkpoint_ref != before.checkpoint_ref
    assert (plait.settings.data / "artifacts" / str(paused.checkpoint_ref) / "manifest.json").is_file()
    assert children_of(worker.pid) == []
    plait.resume(job_id)
    again = plait.until(job_id, trains)
    until(
        lambda: [event.message for event in plait.history(job_id) if event.name == "training.resumed"],
        lambda told: told == [f"Goes on from checkpoint {Path(str(paused.checkpoint_ref)).name}."],
        limit_s=30,
    )
    assert (again.attempt, again.deaths) == (before.attempt, 0)
    plait.cancel(job_id)
    worker.terminate()
    assert worker.wait(30) == 0


def test_a_frozen_child_is_killed_when_a_pause_takes_too_long(
    plait: Stack, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hold.STOP_S, "pause", 0.5)
    plait.until(job_id, lambda job: job.stage == Stage.RUN)
    keeper = Keeper(plait.settings, Lane.TRAIN)
    thread = threading.Thread(target=keeper.work)
    thread.start()
    (child,) = until(own_children, bool, limit_s=20)
    child.suspend()

    plait.pause(job_id)
    keeper.poke()

    paused = plait.until(job_id, is_paused, limit_s=20)
    thread.join(20)
    assert (paused.attempt, paused.deaths) == (0, 0)
    assert not child.is_running()
    close(keeper)


def test_a_check_that_hangs_ends_with_its_time_and_frees_its_worker(plait: Stack, tmp_path: Path) -> None:
    keeper = Keeper(plait.settings, Lane.BATCH)
    spec = {"file": plait.upload(tiny_av(tmp_path)), "role": "training", "multimodal": {}, "timeout_s": 1.0}
    new = jobs.Submission(tenant=TENANT, spec=spec, kind=Kind.CHECK, stage=Stage.RUN, lane=Lane.BATCH)
    with plait.database.transaction() as session:
        job_id = jobs.submit(session, new).id
    thread = threading.Thread(target=keeper.work)
    thread.start()
    (child,) = until(own_children, bool, limit_s=20)
    child.suspend()

    job = plait.until(job_id, lambda job: job.finished_at is not None, limit_s=20)

    thread.join(20)
    assert (job.state, job.error["code"]) == (State.FAILED, "timeout")
    assert not child.is_running()
    close(keeper)


def close(keeper: Keeper) -> None:
    keeper.close()
    keeper.database.close()
    for end in (keeper._bell, keeper._rope):
        end.close()


def own_children() -> list[psutil.Process]:
    """The children of keepers in this process."""
    return [p for p in psutil.Process().children() if "worker.child" in p.cmdline()]

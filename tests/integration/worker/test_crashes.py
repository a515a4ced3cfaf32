"""Whoever dies, the job ends once, from its last checkpoint. Real processes, real signals, a real model."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from db import checkpoints
from db.tables import Job
from domain.job import Lane, State
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, tiny_encoders
from support.stack import Stack, children_of, decoders_of, kill_tree, stack, until


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mirror = tmp_path_factory.mktemp("encoders")
    tiny_encoders(mirror)
    return mirror


@pytest.fixture(params=["sqlite"])
def plait(request: pytest.FixtureRequest, tmp_path: Path, encoders: Path) -> Iterator[Stack]:
    """A stack with a cpu worker and upkeep; each test starts the train worker that it needs."""
    with stack(tmp_path, kind=request.param, encoders=encoders) as made:
        made.worker(Lane.CPU)
        made.start("upkeep")
        yield made


@pytest.fixture
def data(plait: Stack, tmp_path: Path) -> str:
    return plait.upload(tiny_av(tmp_path))


def long_training(*, epochs: int = 200) -> dict[str, Any]:
    """Some seconds of small steps, with a checkpoint early on."""
    return {
        "towers": {
            "image": {"encoder": IMAGE},
            "audio": {"encoder": AUDIO, "max_seconds": 0.5},
        },
        "fusion": {"dim": 32},
        "hyperparameters": {"n_epochs": epochs, "batch_size": 8, "save_steps": 50, "eval_steps": 200},
    }


def has_checkpoint(job: Job) -> bool:
    return job.state == State.RUNNING and job.checkpoint_ref is not None


def is_final(job: Job) -> bool:
    return job.finished_at is not None


def assert_finished_once(plait: Stack, job_id: str) -> None:
    """The last claim succeeded, from a checkpoint, with one model and a history without gaps."""
    history = plait.history(job_id)
    names = [event.name for event in history]
    assert plait.job(job_id).state == State.SUCCEEDED, plait.explain(job_id)
    assert [event.seq for event in history] == list(range(1, len(history) + 1))
    assert names.count("job.succeeded") == 1
    assert "training.resumed" in names
    job, artifacts = plait.job(job_id), plait.settings.data / "artifacts"
    assert (artifacts / str(job.result_ref)).is_dir()
    with plait.database.reading() as session:
        kept = checkpoints.kept(session, job_id)
    assert job.checkpoint_ref in kept
    named = {str(ref).split("/")[2] for ref in (job.result_ref, *kept)}
    until(
        lambda: {p.name for p in (artifacts / "jobs" / job_id).iterdir()},
        lambda found: found == named,
        limit_s=5,
    )


def test_a_job_whose_child_is_killed_goes_on_from_its_checkpoint(plait: Stack, data: str) -> None:
    worker = plait.worker(Lane.TRAIN)
    job_id = plait.submit(data, long_training())
    plait.until(job_id, has_checkpoint)

    children_of(worker.pid)[0].kill()

    plait.until(job_id, is_final)
    assert_finished_once(plait, job_id)
    assert plait.job(job_id).deaths == 1


@pytest.mark.slow
def test_a_job_whose_keeper_is_killed_goes_on_with_another_worker(plait: Stack, data: str) -> None:
    worker = plait.worker(Lane.TRAIN)
    job_id = plait.submit(data, long_training())
    plait.until(job_id, has_checkpoint)
    child = children_of(worker.pid)[0]

    worker.send_signal(signal.SIGKILL)

    child.wait(5)  # it dies with its keeper, long before the lease is over
    plait.worker(Lane.TRAIN)
    plait.until(job_id, is_final)
    assert_finished_once(plait, job_id)


@pytest.mark.slow
def test_a_job_whose_whole_worker_is_killed_goes_on_with_another(plait: Stack, data: str) -> None:
    worker = plait.worker(Lane.TRAIN)
    job_id = plait.submit(data, long_training())
    plait.until(job_id, has_checkpoint)

    kill_tree(worker.pid, signal.SIGKILL)

    plait.worker(Lane.TRAIN)
    plait.until(job_id, is_final)
    assert_finished_once(plait, job_id)


@pytest.mark.slow
def test_a_frozen_worker_loses_its_job_and_writes_nothing_when_it_wakes(plait: Stack, data: str) -> None:
    frozen = plait.worker(Lane.TRAIN)
    job_id = plait.submit(data, long_training())
    plait.until(job_id, has_checkpoint)

    frozen.send_signal(signal.SIGSTOP)

    plait.until(job_id, lambda job: job.deaths == 1)
    plait.worker(Lane.TRAIN)
    plait.until(job_id, lambda job: job.state == State.RUNNING)
    frozen.send_signal(signal.SIGCONT)
    plait.until(job_id, is_final)
    assert_finished_once(plait, job_id)


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_hands_its_job_on_with_a_checkpoint(plait: Stack, data: str) -> None:
    worker = plait.worker(Lane.TRAIN)
    job_id = plait.submit(data, long_training())
    plait.until(job_id, has_checkpoint)

    worker.terminate()

    assert worker.wait(30) == 0
    waiting = plait.job(job_id)
    assert (waiting.state, waiting.attempt, waiting.deaths) == (State.QUEUED, 0, 0)
    plait.worker(Lane.TRAIN)
    plait.until(job_id, is_final)
    assert_finished_once(plait, job_id)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["child killed", "worker killed", "cancel", "drain"])
def test_no_decoder_outlives_a_training_however_it_ends(plait: Stack, data: str, ending: str) -> None:
    worker = plait.worker(Lane.TRAIN)
    job_id = plait.submit(data, long_training(epochs=5000))
    plait.until(job_id, has_checkpoint)
    [child] = psutil.Process(worker.pid).children()
    decoding = decoders_of(child.pid)
    assert decoding

    match ending:
        case "child killed":
            child.kill()
        case "worker killed":
            worker.kill()
        case "cancel":
            plait.cancel(job_id)
        case "drain":
            worker.terminate()

    assert psutil.wait_procs(decoding, timeout=30)[1] == []


@pytest.mark.slow
def test_flushing_the_broker_midway_loses_nothing(plait: Stack, data: str) -> None:
    plait.worker(Lane.TRAIN)
    first = plait.submit(data, long_training(epochs=100))
    second = plait.submit(data, long_training(epochs=5))
    plait.until(first, has_checkpoint)

    redis.Redis.from_url(plait.settings.redis_url).flushall()

    for job_id in (first, second):
        assert plait.until(job_id, is_final).state == State.SUCCEEDED


@pytest.mark.slow
def test_a_job_submitted_while_the_broker_is_dead_still_runs(plait: Stack, data: str) -> None:
    plait.worker(Lane.TRAIN)
    assert isinstance(plait.broker, subprocess.Popen)
    plait.broker.kill()
    plait.broker.wait()

    job_id = plait.submit(data, long_training(epochs=5))

    assert plait.until(job_id, is_final).state == State.SUCCEEDED


def test_a_cancel_stops_a_training_within_two_seconds_and_keeps_its_checkpoint(
    plait: Stack, data: str
) -> None:
    worker = plait.worker(Lane.TRAIN)
    job_id = plait.submit(data, long_training(epochs=5000))
    plait.until(job_id, has_checkpoint)

    plait.cancel(job_id)

    job = plait.until(job_id, is_final, limit_s=2.0)
    assert job.state == State.CANCELLED
    checkpoint = plait.settings.data / "artifacts" / str(job.checkpoint_ref)
    assert (checkpoint / "manifest.json").is_file()
    until(lambda: children_of(worker.pid), lambda children: not children, limit_s=2.0)


@pytest.mark.slow
def test_a_cancel_stops_a_training_whose_first_epoch_still_encodes(plait: Stack, tmp_path: Path) -> None:
    plait.worker(Lane.TRAIN)
    many = tmp_path / "many"
    many.mkdir()
    slow = {
        "towers": {"image": {"encoder": IMAGE, "image_size": 1024}},
        "hyperparameters": {"n_epochs": 1},
    }
    job_id = plait.submit(plait.upload(tiny_av(many, rows=1500)), slow)
    plait.until(job_id, lambda job: bool(job.progress) and job.progress.get("stage") == "encoding")

    plait.cancel(job_id)

    assert plait.until(job_id, is_final, limit_s=2.0).state == State.CANCELLED

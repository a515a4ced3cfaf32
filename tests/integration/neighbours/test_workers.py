"""Workers and upkeep beside neighbours that are silent: they go on, they end when told, and no job is lost."""

import dataclasses
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from db.tables import Job
from domain.job import Lane, State
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, tiny_encoders
from support.stack import Stack, children_of, stack, until
from support.valve import Valve, before_broker, before_postgresql

#: For a process that is told to end: more than a silent neighbour may hold it up.
END_S = 30


@dataclass
class Beside:
    plait: Stack
    redis: Valve
    database: Valve

    def submit_nothing_good(self) -> str:
        """A job that a cpu worker fails at once."""
        path = self.plait.folder / "bad.jsonl"
        path.write_text("this is no table\n")
        return self.plait.submit(self.plait.upload(path), {})


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    """The processes reach both neighbours through valves; the test itself does not."""
    tiny_encoders(tmp_path / "encoders")
    with (
        stack(tmp_path, kind="postgresql", encoders=tmp_path / "encoders") as plait,
        before_broker(plait.settings.redis_url) as (redis, redis_url),
        before_postgresql(plait.settings.database_url) as (database, database_url),
    ):
        plait.settings = dataclasses.replace(
            plait.settings, redis_url=redis_url, database_url=database_url, database_timeout_s=1.0
        )
        yield Beside(plait, redis, database)


def is_final(job: Job) -> bool:
    return job.finished_at is not None


def ended(*processes: "subprocess.Popen[bytes]") -> list[int]:
    """Their exit codes, once each was told to end."""
    for process in processes:
        process.terminate()
    return [process.wait(END_S) for process in processes]


@pytest.mark.slow
def test_beside_a_silent_broker_jobs_run_and_processes_end_when_told(beside: Beside) -> None:
    worker, upkeep = beside.plait.worker(Lane.CPU), beside.plait.start("upkeep")
    beside.plait.until(beside.submit_nothing_good(), is_final)
    beside.redis.shut()

    beside.plait.until(beside.submit_nothing_good(), is_final)

    assert ended(worker, upkeep) == [0, 0]


def test_beside_a_silent_database_processes_end_when_told_and_go_on_once_it_answers(beside: Beside) -> None:
    told, staying = beside.plait.worker(Lane.CPU), beside.plait.start("upkeep")
    beside.plait.until(beside.submit_nothing_good(), is_final)
    beside.database.shut()

    assert ended(told) == [0]
    beside.database.open()
    beside.plait.worker(Lane.CPU)
    beside.plait.until(beside.submit_nothing_good(), is_final)
    assert ended(staying) == [0]


@pytest.mark.slow
def test_a_training_whose_database_is_silent_longer_than_its_lease_ends_itself_and_goes_on_later(
    beside: Beside, tmp_path: Path
) -> None:
    plait = beside.plait
    plait.worker(Lane.CPU)
    plait.start("upkeep")
    worker = plait.worker(Lane.TRAIN)
    towers = {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO, "max_seconds": 0.5}}
    steps = {"n_epochs": 200, "batch_size": 8, "save_steps": 50, "eval_steps": 200}
    job_id = plait.submit(
        plait.upload(tiny_av(tmp_path)), {"towers": towers, "fusion": {"dim": 32}, "hyperparameters": steps}
    )
    plait.until(job_id, lambda job: job.state == State.RUNNING and job.checkpoint_ref is not None)
    child = children_of(worker.pid)[0]

    beside.database.shut()

    # Its lease is over before anybody may take the job: by itself, as its keeper waits for the database.
    child.wait(plait.settings.lease_s)
    beside.database.open()
    final = plait.until(job_id, is_final)
    names = [event.name for event in plait.history(job_id)]
    assert final.state == State.SUCCEEDED, plait.explain(job_id)
    assert final.deaths == 1
    assert "training.resumed" in names
    assert worker.poll() is None
    until(
        lambda: [e.seq for e in plait.history(job_id)], lambda s: s == list(range(1, len(s) + 1)), limit_s=5
    )

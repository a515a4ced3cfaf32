"""A job that was killed, paused or prolonged has, in the database, the metrics of one that ran through. To the bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from db import checkpoints
from db.tables import Job, Metric
from domain.job import Lane, State
from support.datasets import tiny_av
from support.encoders import IMAGE, TEXT, tiny_encoders
from support.stack import Stack, children_of, stack

FROZEN = {"image": {"encoder": IMAGE}, "text": {"encoder": TEXT}}
TRAINED = {"image": {"encoder": IMAGE, "freeze": False, "lr": 1e-3}, "text": {"encoder": TEXT}}
#: What a run measures that is another in each run.
_TIMES = ("seconds", "speedup", "fraction", "hit_rate")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mirror = tmp_path_factory.mktemp("encoders")
    tiny_encoders(mirror)
    return mirror


@pytest.fixture
def plait(tmp_path: Path, encoders: Path) -> Iterator[Stack]:
    with stack(tmp_path, encoders=encoders) as made:
        made.worker(Lane.CPU)
        made.start("upkeep")
        yield made


@pytest.fixture
def data(plait: Stack, tmp_path: Path) -> str:
    return plait.upload(tiny_av(tmp_path))


def spec(towers: dict[str, Any], epochs: int) -> dict[str, Any]:
    hyper = {
        "n_epochs": epochs,
        "batch_size": 8,
        "save_steps": 10,
        "logging_steps": 1,
        "lr_scheduler_type": "constant",
        "warmup_steps": 5,
    }
    return {"towers": towers, "fusion": {"dim": 8}, "hyperparameters": hyper}


def series(plait: Stack, job_id: str) -> dict[tuple[str, int], float]:
    with plait.database.reading() as session:
        rows = session.scalars(select(Metric).where(Metric.job == job_id)).all()
    return {(m.name, m.step): m.value for m in rows if not any(word in m.name for word in _TIMES)}


def trained(plait: Stack, job_id: str) -> dict[tuple[str, int], float]:
    """The metrics of the job once it has succeeded."""
    job = plait.until(job_id, lambda job: job.finished_at is not None, limit_s=240)
    assert job.state == State.SUCCEEDED, plait.explain(job_id)
    return series(plait, job_id)


def runs_from_a_checkpoint(job: Job) -> bool:
    return job.state == State.RUNNING and job.checkpoint_ref is not None


def interrupted(plait: Stack, worker: int, data: str, multimodal: dict[str, Any]) -> str:
    """A job whose child is killed with -9 and which is paused and resumed."""
    job_id = plait.submit(data, multimodal)
    plait.until(job_id, runs_from_a_checkpoint)
    children_of(worker)[0].kill()
    plait.until(job_id, lambda job: job.deaths >= 1 and job.state == State.RUNNING)
    plait.pause(job_id)
    plait.until(job_id, lambda job: job.state == State.PAUSED)
    plait.resume(job_id)
    return job_id


@pytest.mark.slow
@pytest.mark.parametrize("towers", [pytest.param(FROZEN, id="frozen"), pytest.param(TRAINED, id="trained")])
def test_a_job_that_was_killed_paused_and_prolonged_has_the_metrics_of_one_that_was_not(
    plait: Stack, data: str, towers: dict[str, Any]
) -> None:
    epochs = 60 if towers is FROZEN else 30
    worker = plait.worker(Lane.TRAIN).pid
    unbroken = trained(plait, plait.submit(data, spec(towers, epochs + 2)))

    broken = interrupted(plait, worker, data, spec(towers, epochs))
    until_the_end_of_the_shorter = trained(plait, broken)
    longer = plait.submit(data, spec(towers, epochs + 2), resume_from_checkpoint=broken)

    last = max(step for name, step in unbroken if name == "train_loss") - 2 * 4
    names = ("train_loss", "lr", "grad_norm", "valid_loss")
    assert _of(until_the_end_of_the_shorter, names, up_to=last) == _of(unbroken, names, up_to=last)
    after = _of(trained(plait, longer), names, after=last)
    assert {step for _, step in after} == set(range(last + 1, last + 9))
    assert after == _of(unbroken, names, after=last)
    started = f"Goes on from checkpoint step-{last} of another job."
    assert started in [event.message for event in plait.history(longer)]
    assert "training.resumed" in [event.name for event in plait.history(broken)]


def _of(
    told: dict[tuple[str, int], float], names: tuple[str, ...], *, after: int = 0, up_to: int = 10**9
) -> dict[tuple[str, int], float]:
    return {at: value for at, value in told.items() if at[0] in names and after < at[1] <= up_to}


def kept(plait: Stack, job_id: str) -> list[Path]:
    with plait.database.reading() as session:
        refs = checkpoints.kept(session, job_id)
    return [plait.settings.data / "artifacts" / ref for ref in refs]


def damage(folder: Path) -> None:
    """One bit of the weights, which no parser would notice."""
    with (folder / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_with_an_event_and_nothing_is_lost(
    plait: Stack, data: str
) -> None:
    worker = plait.worker(Lane.TRAIN)
    job_id = plait.submit(data, spec(FROZEN, 40))
    plait.until(job_id, lambda _: len(kept(plait, job_id)) == 2)
    plait.pause(job_id)
    plait.until(job_id, lambda job: job.state == State.PAUSED)
    newest, older = kept(plait, job_id)
    damage(newest)

    plait.resume(job_id)
    told = trained(plait, job_id)

    said = [(event.name, event.message) for event in plait.history(job_id)]
    assert (
        "training.checkpoint_damaged",
        f"Checkpoint {newest.name} is damaged or gone; an earlier one is tried.",
    ) in said
    assert ("training.resumed", f"Goes on from checkpoint {older.name}.") in said
    assert told == trained(plait, plait.submit(data, spec(FROZEN, 40)))
    assert worker.poll() is None

    for folder in kept(plait, job_id):
        damage(folder)
    refused = plait.submit(data, spec(FROZEN, 41), resume_from_checkpoint=job_id)
    other_seed = plait.submit(data, spec(FROZEN, 41), resume_from_checkpoint=job_id, seed=5)
    for new in (refused, other_seed):
        job = plait.until(new, lambda job: job.finished_at is not None)
        assert (job.state, job.error["code"]) == (State.FAILED, "checkpoint_unreadable")  # type: ignore[index]


@pytest.mark.slow
def test_a_checkpoint_of_other_rows_or_another_spec_is_refused_by_what_differs(
    plait: Stack, data: str, tmp_path: Path
) -> None:
    plait.worker(Lane.TRAIN)
    source = plait.submit(data, spec(FROZEN, 2))
    trained(plait, source)
    others = tmp_path / "others"
    others.mkdir()
    other_rows = plait.upload(tiny_av(others, seed=7))
    cases = {
        "training_file": plait.submit(other_rows, spec(FROZEN, 3), resume_from_checkpoint=source),
        "seed": plait.submit(data, spec(FROZEN, 3), resume_from_checkpoint=source, seed=3),
        "multimodal.hyperparameters.n_epochs": plait.submit(
            data, spec(FROZEN, 1), resume_from_checkpoint=source
        ),
    }

    for param, job_id in cases.items():
        job = plait.until(job_id, lambda job: job.finished_at is not None)
        assert (job.state, job.error["code"], job.error["param"]) == (  # type: ignore[index]
            State.FAILED,
            "checkpoint_mismatch",
            param,
        ), plait.explain(job_id)

"""Predictions on the infer lane: a child that stays, bad rows, cancels, deaths. Real processes, a tiny real model."""

import base64
import dataclasses
import io
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import pytest
from sqlalchemy import select

from db import jobs, registry
from db.session import now
from db.tables import Job
from domain.ids import new_id
from domain.job import Kind, Lane, Stage, State
from support import bombs
from support.datasets import png, shape, tiny_av
from support.encoders import IMAGE, TEXT, tiny_encoders
from support.stack import TENANT, Stack, children_of, decoders_of, stack, until

Cells = dict[str, Any]


@dataclass
class Plait:
    """A stack with a trained model and, when it is asked for, one infer worker."""

    stack: Stack
    model: str
    _workers: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def worker(self) -> "subprocess.Popen[bytes]":
        """The infer worker; another test may have killed the one before."""
        if not self._workers or self._workers[-1].poll() is not None:
            self._workers.append(self.stack.worker(Lane.INFER))
        return self._workers[-1]

    def submit(self, *rows: Cells, model: str | None = None, **more: Any) -> str:
        """As the API does: media in the row or in the blob store, what was wrong at the door under `problems`."""
        problems = [row.pop("problems", {}) for row in rows]
        inputs = [
            {"id": f"r{n}", "values": row, "problems": found}
            for n, (row, found) in enumerate(zip(rows, problems, strict=True))
        ]
        spec = {"model": model or self.model, "inputs": inputs, "top_k": 1, **more}
        with self.stack.database.transaction() as session:
            job = jobs.submit(
                session,
                jobs.Submission(
                    tenant=TENANT,
                    spec=spec,
                    kind=Kind.PREDICT,
                    stage=Stage.RUN,
                    lane=Lane.INFER,
                    message="Accepted.",
                ),
            )
        self.stack.bells.ring(Lane.INFER)
        return job.id

    def final(self, job_id: str, limit_s: float = 120.0) -> Job:
        return self.stack.until(job_id, lambda job: job.finished_at is not None, limit_s=limit_s)

    def answers(self, *rows: Cells, **more: Any) -> list[dict[str, Any]]:
        self.worker()
        job = self.final(self.submit(*rows, **more))
        assert job.state == State.SUCCEEDED, self.stack.explain(job.id)
        return list(job.result["predictions"])

    def blob(self, data: bytes) -> str:
        key = new_id("file-")
        self.stack.blobs.write(key, io.BytesIO(data))
        return key

    def child(self) -> psutil.Process:
        """The worker's one child, once there is one. What decodes is the child's."""
        worker = psutil.Process(self.worker().pid)
        [child] = until(worker.children, lambda found: len(found) == 1, limit_s=30)
        return child


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plait]:
    folder = tmp_path_factory.mktemp("stack")
    tiny_encoders(folder / "encoders")
    with stack(folder, kind="postgresql", encoders=folder / "encoders") as made:
        # Loading torch on a busy machine may hold the interpreter for longer than the usual lease of tests.
        made.settings = dataclasses.replace(made.settings, lease_s=8.0)
        trainers = [made.worker(Lane.CPU), made.worker(Lane.TRAIN)]
        spec = {
            "towers": {"image": {"encoder": IMAGE}, "text": {"encoder": TEXT}},
            "fusion": {"dim": 8},
            "hyperparameters": {"n_epochs": 1},
        }
        job_id = made.submit(made.upload(tiny_av(folder)), spec)
        trained = made.until(job_id, lambda job: job.finished_at is not None)
        assert trained.state == State.SUCCEEDED, made.explain(job_id)
        for trainer in trainers:
            trainer.kill()
        made.start("upkeep")
        yield Plait(made, trained.result["model"])


def inline(data: bytes) -> dict[str, str]:
    return {"inline": base64.b64encode(data).decode()}


PICTURE = png(shape(0, 32, np.random.default_rng(0)))


def slow(plait: Plait, rows: int, px: int = 3000) -> list[Cells]:
    """Rows that take a good part of a second each: pictures of 9 megapixels."""
    key = plait.blob(png(np.zeros((px, px, 3), np.uint8)))
    return [{"image": {"blob": key, "sha256": "", "bytes": 0, "file": "file-x"}} for _ in range(rows)]


def running(job: Job) -> bool:
    return job.state == State.RUNNING


def at_work(plait: Plait, rows: int) -> tuple[psutil.Process, str]:
    """A child that stayed, in the middle of the job that is told too: one that has not heard of it yet dies for free."""
    plait.answers({"text": "a"})
    child = plait.child()
    idle_s = child.cpu_times().user
    job_id = plait.submit(*slow(plait, rows))
    until(lambda: child.cpu_times().user - idle_s, lambda spent_s: spent_s > 0.3, limit_s=60)
    return child, job_id


def loads(process: psutil.Process, library: str) -> bool:
    return any(library in mapped.path for mapped in process.memory_maps())


def test_a_worker_that_has_nothing_to_predict_has_no_child_and_no_torch(plait: Plait) -> None:
    worker = psutil.Process(plait.worker().pid)

    until(lambda: loads(worker, "psycopg"), bool, limit_s=30)

    assert children_of(worker.pid) == []
    assert not loads(worker, "libtorch")


def test_one_child_serves_all_predictions_and_loads_the_model_once(plait: Plait) -> None:
    [first] = plait.answers({"image": inline(PICTURE), "text": "a red shape"}, return_embeddings=True)
    child = plait.child()
    with plait.stack.database.reading() as session:
        folder = plait.stack.settings.data / "artifacts" / registry.get(session, TENANT, plait.model).ref
    away = folder.rename(folder.with_name("away"))
    try:
        [second] = plait.answers({"image": inline(PICTURE), "text": "a red shape"})
    finally:
        away.rename(folder)

    assert plait.child().pid == child.pid
    assert loads(child, "libtorch")
    assert not loads(psutil.Process(plait.worker().pid), "libtorch")
    assert second["probabilities"] == first["probabilities"]
    assert len(first["embedding"]) == 8
    assert second["embedding"] is None
    assert first["modalities"]["used"] == ["image", "text"]


def test_an_idle_child_lives_longer_than_the_lease_of_its_last_job(plait: Plait) -> None:
    plait.answers({"text": "a"})
    child = plait.child()
    with plait.stack.database.reading() as session:
        began = session.scalar(select(now()))
    lease_s = plait.stack.settings.lease_s

    def instant() -> float:
        with plait.stack.database.reading() as session:
            return float(session.scalar(select(now())))

    until(instant, lambda at: at > began + lease_s, limit_s=30)

    plait.answers({"text": "a"})
    assert plait.child().pid == child.pid


def test_a_bad_row_stands_beside_good_ones(plait: Plait) -> None:
    lost = plait.blob(b"")
    plait.stack.blobs.delete(lost)
    rows: list[Cells] = [
        {"image": inline(PICTURE)},
        {"image": inline(b"no picture"), "text": "a"},
        {"image": None, "problems": {"image": {"code": "url_not_allowed", "message": "send bytes"}}},
        {"image": {"blob": lost, "sha256": "", "bytes": 1}},
        {},
        {"text": "a", "colour": "red"},
        {"text": "a red shape"},
    ]

    found = plait.answers(*rows)

    codes = [item["error"] and item["error"]["code"] for item in found]
    assert codes == [
        None,
        "unreadable_media",
        "url_not_allowed",
        "missing_media",
        "all_modalities_missing",
        "unknown_column",
        None,
    ]
    assert [item["id"] for item in found] == [f"r{n}" for n in range(7)]
    assert found[0]["label"]
    assert found[6]["label"]
    assert found[1]["modalities"]["failed"] == ["image"]


def test_media_of_the_prediction_alone_are_gone_afterwards_and_uploaded_files_are_not(plait: Plait) -> None:
    own, uploaded = plait.blob(PICTURE), plait.blob(PICTURE)
    job = plait.final(
        plait.submit(
            {"image": {"blob": own, "sha256": "abc", "bytes": len(PICTURE)}},
            {"image": {"blob": uploaded, "sha256": "abc", "bytes": len(PICTURE), "file": uploaded}},
        )
    )

    one, other = job.result["predictions"]
    assert one["error"] is None
    assert one["probabilities"] == other["probabilities"]
    until(lambda: plait.stack.blobs.path(own).exists(), lambda there: not there, limit_s=5)
    assert plait.stack.blobs.path(uploaded).exists()
    assert job.spec["inputs"][0]["values"]["image"]["sha256"] == "abc"


def test_a_finished_prediction_leaves_no_folder(plait: Plait) -> None:
    job_id = plait.submit({"text": "a"})
    plait.final(job_id)

    folder = plait.stack.settings.data / "artifacts" / "jobs" / job_id
    until(folder.exists, lambda there: not there, limit_s=5)


def test_a_model_deleted_meanwhile_fails_the_prediction_and_not_the_worker(plait: Plait) -> None:
    own = plait.blob(PICTURE)
    plait.answers({"text": "a"})
    child = plait.child()
    job = plait.final(plait.submit({"image": {"blob": own, "sha256": "", "bytes": 1}}, model="ft:gone"))

    assert job.state == State.FAILED
    assert (job.error["code"], job.error["param"]) == ("model_not_found", "model")
    until(lambda: plait.stack.blobs.path(own).exists(), lambda there: not there, limit_s=5)
    plait.answers({"text": "a"})
    assert plait.child().pid == child.pid


def test_a_running_prediction_is_cancelled_at_once_and_its_child_serves_the_next(plait: Plait) -> None:
    plait.answers({"text": "a"})
    child = plait.child()
    job_id = plait.submit(*slow(plait, 1500, px=1000))
    plait.stack.until(job_id, running)

    plait.stack.cancel(job_id)

    assert plait.final(job_id, limit_s=2.0).state == State.CANCELLED
    assert plait.answers({"text": "a"})[0]["label"]
    assert plait.child().pid == child.pid


def test_a_prediction_whose_child_is_killed_goes_on_in_another(plait: Plait) -> None:
    before, job_id = at_work(plait, rows=30)

    before.kill()

    job = plait.final(job_id)
    assert job.state == State.SUCCEEDED, plait.stack.explain(job_id)
    assert (job.deaths, job.attempt) == (1, 1)
    assert len(job.result["predictions"]) == 30
    assert plait.child().pid != before.pid


@pytest.mark.slow
def test_a_prediction_that_kills_three_children_is_given_up(plait: Plait) -> None:
    first, job_id = at_work(plait, rows=200)
    first.kill()
    killed = {first.pid}
    for _ in range(2):
        living = until(
            lambda: [c for c in psutil.Process(plait.worker().pid).children() if c.pid not in killed],
            lambda found: bool(found),
            limit_s=30,
        )
        killed.add(living[0].pid)
        living[0].kill()

    job = plait.final(job_id)
    assert (job.state, job.error["code"], job.deaths) == (State.FAILED, "worker_died", 3)
    assert plait.answers({"text": "a"})[0]["label"]


def test_a_child_that_hangs_costs_one_prediction_its_time_and_no_other_anything(plait: Plait) -> None:
    plait.answers({"text": "a"})
    frozen = plait.child()
    frozen.suspend()

    job = plait.final(plait.submit({"text": "a"}, timeout_s=1.0))

    assert (job.state, job.error["code"]) == (State.FAILED, "timeout")
    assert plait.answers({"text": "a"})[0]["label"]
    assert plait.child().pid != frozen.pid


@pytest.mark.slow
def test_a_child_that_died_while_it_was_idle_is_no_death_of_the_next_prediction(plait: Plait) -> None:
    plait.answers({"text": "a"})
    idle = plait.child()
    idle.kill()
    until(idle.status, lambda s: s == psutil.STATUS_ZOMBIE, limit_s=5)

    job = plait.final(plait.submit({"text": "a"}))

    assert (job.state, job.deaths) == (State.SUCCEEDED, 0), plait.stack.explain(job.id)


@pytest.mark.slow
def test_a_child_that_dies_before_it_hears_of_a_prediction_is_no_death_of_it(plait: Plait) -> None:
    plait.answers({"text": "a"})
    idle = plait.child()
    idle.suspend()
    job_id = plait.submit({"text": "a"})
    plait.stack.until(job_id, running)

    idle.kill()

    job = plait.final(job_id)
    assert (job.state, job.deaths) == (State.SUCCEEDED, 0), plait.stack.explain(job.id)


@pytest.mark.slow
def test_an_idle_child_ends_with_its_killed_keeper(plait: Plait) -> None:
    plait.answers({"text": "a"})
    child, worker = plait.child(), plait.worker()

    worker.send_signal(signal.SIGKILL)

    worker.wait(5)
    until(child.is_running, lambda there: not there, limit_s=5)
    assert plait.answers({"text": "a"})[0]["label"]


def test_a_worker_that_is_told_to_end_takes_its_idle_child_along(plait: Plait) -> None:
    plait.answers({"text": "a"})
    child, worker = plait.child(), plait.worker()
    decoding = decoding_of(plait, child)

    worker.terminate()

    assert worker.wait(30) == 0
    assert not child.is_running()
    assert psutil.wait_procs(decoding, timeout=10)[1] == []


def decoding_of(plait: Plait, child: psutil.Process) -> list[psutil.Process]:
    """The child's decoder, which has decoded."""
    plait.answers({"image": inline(PICTURE)})
    found = decoders_of(child.pid)
    assert len(found) == 1
    return found


def test_a_bomb_is_its_rows_error_and_takes_neither_the_child_nor_its_decoder_along(plait: Plait) -> None:
    plait.answers({"text": "a"})
    child = plait.child()
    decoding = decoding_of(plait, child)

    bomb, good = plait.answers({"image": inline(bombs.jpeg(65_000, 65_000))}, {"image": inline(PICTURE)})

    assert (bomb["error"]["code"], good["error"]) == ("too_large", None)
    assert plait.child().pid == child.pid
    assert decoders_of(child.pid) == decoding


@pytest.mark.slow
@pytest.mark.parametrize("who", ["child", "worker"])
def test_no_decoder_outlives_a_child_that_is_killed_or_whose_worker_is(plait: Plait, who: str) -> None:
    plait.answers({"text": "a"})
    child, worker = plait.child(), plait.worker()
    decoding = decoding_of(plait, child)
    # In the middle of items.
    job_id = plait.submit(*slow(plait, 30))
    plait.stack.until(job_id, running)

    (child if who == "child" else worker).kill()

    assert psutil.wait_procs(decoding, timeout=10)[1] == []
    plait.stack.cancel(job_id)
    worker.kill()
    worker.wait()


@pytest.mark.slow
def test_a_worker_told_to_end_hands_its_prediction_on(plait: Plait) -> None:
    plait.answers({"text": "a"})
    job_id = plait.submit(*slow(plait, 40))
    plait.stack.until(job_id, running)
    worker = plait.worker()

    worker.terminate()

    assert worker.wait(30) == 0
    waiting = plait.stack.job(job_id)
    assert (waiting.state, waiting.attempt, waiting.deaths) == (State.QUEUED, 0, 0)
    plait.stack.cancel(job_id)

"""A model that writes, the whole way: checked, trained and asked by real processes, with a tiny language model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db import jobs
from db.tables import Job
from domain.job import Kind, Lane, Stage, State
from support.encoders import VIT, tiny_encoders
from support.language import LANGUAGE, asked_pictures, tiny_language_model
from support.stack import TENANT, Stack, stack

SPEC: dict[str, Any] = {
    "family": "vlm",
    "towers": {"image": {"encoder": VIT}, "question": {}},
    "language_model": {"model": LANGUAGE, "media_tokens": 4, "max_length": 32},
    "hyperparameters": {"n_epochs": 1},
}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    tiny_encoders(folder / "encoders")
    tiny_language_model(folder / "encoders" / LANGUAGE)
    with stack(folder, encoders=folder / "encoders") as made:
        made.worker(Lane.CPU)
        yield made


def ended(plait: Stack, job_id: str) -> Job:
    return plait.until(job_id, lambda job: job.finished_at is not None)


def predicted(plait: Stack, model: str, rows: list[dict[str, Any]], **options: Any) -> Job:
    inputs = [{"id": str(n), "values": row, "problems": {}} for n, row in enumerate(rows)]
    with plait.database.transaction() as session:
        job = jobs.submit(
            session,
            jobs.Submission(
                tenant=TENANT,
                spec={"model": model, "inputs": inputs, "top_k": 1, "return_embeddings": False, **options},
                kind=Kind.PREDICT,
                stage=Stage.RUN,
                lane=Lane.INFER,
                message="Accepted.",
            ),
        )
    plait.bells.ring(Lane.INFER)
    return ended(plait, job.id)


@pytest.mark.slow
def test_a_job_makes_a_model_that_writes(plait: Stack, tmp_path: Path) -> None:
    plait.worker(Lane.TRAIN)
    job = ended(plait, plait.submit(plait.upload(asked_pictures(tmp_path, rows=20)), SPEC, model="vlm"))
    assert job.state == State.SUCCEEDED, plait.explain(job.id)
    assert job.resolved is not None
    assert job.resolved["language_model"]["lora"]["r"] == 8
    assert "auto" not in json.dumps(job.resolved)
    assert "valid_exact_match" in job.result["metrics"]

    plait.worker(Lane.INFER)
    answer = predicted(plait, job.result["model"], [{"question": "what colour is it ?"}, {}], max_tokens=3)

    assert answer.state == State.SUCCEEDED, plait.explain(answer.id)
    written, refused = answer.result["predictions"]
    assert isinstance(written["text"], str)
    assert written["finish_reason"] in ("stop", "length")
    assert refused["error"]["code"] == "all_modalities_missing"


@pytest.mark.slow
def test_a_language_model_that_cannot_be_had_ends_the_job_before_training(
    plait: Stack, tmp_path: Path
) -> None:
    absent = {**SPEC, "language_model": {"model": "tiny/absent"}}

    job = ended(plait, plait.submit(plait.upload(asked_pictures(tmp_path, rows=20)), absent, model="vlm"))

    assert (job.state, job.error["code"]) == (State.FAILED, "encoder_unavailable")
    assert job.error["param"] == "multimodal.language_model.model"
    assert "encoders pull tiny/absent" in job.error["message"]

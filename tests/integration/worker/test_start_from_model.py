"""Pretraining on rows without labels, and a fine-tune that starts from it: real jobs, a tiny real model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db import jobs, registry
from db.tables import Job
from domain.job import Kind, Lane, Stage, State
from support.encoders import TEXT, tiny_encoders
from support.stack import TENANT, Stack, stack

TOWERS: dict[str, Any] = {"name": {"encoder": TEXT, "freeze": False, "lr": 1e-3}, "size": {}}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    tiny_encoders(folder / "encoders")
    with stack(folder, encoders=folder / "encoders") as made:
        for lane in (Lane.CPU, Lane.TRAIN, Lane.INFER):
            made.worker(lane)
        yield made


def table(folder: Path, *, labels: bool) -> Path:
    path = folder / f"{'labelled' if labels else 'unlabelled'}.jsonl"
    rows = [{"name": f"a thing called {n % 9}", "size": n % 9 + 0.5} for n in range(40)]
    told = [row | {"label": "ab"[n % 2]} if labels else row for n, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in told))
    return path


def ended(plait: Stack, job_id: str) -> Job:
    return plait.until(job_id, lambda job: job.finished_at is not None)


def started(plait: Stack, path: Path, **more: Any) -> str:
    spec = {
        "towers": TOWERS,
        "fusion": {"dim": 8},
        "hyperparameters": {"n_epochs": 2},
        **more.pop("spec", {}),
    }
    return plait.submit(plait.upload(path), spec, **more)


def answers(plait: Stack, model: str) -> dict[str, Any]:
    spec = {
        "model": model,
        "inputs": [{"id": "r", "values": {"name": "a thing called 3"}, "problems": {}}],
        "return_embeddings": True,
    }
    new = jobs.Submission(tenant=TENANT, spec=spec, kind=Kind.PREDICT, stage=Stage.RUN, lane=Lane.INFER)
    with plait.database.transaction() as session:
        job = jobs.submit(session, new).id
    plait.bells.ring(Lane.INFER)
    done = ended(plait, job)
    assert done.state == State.SUCCEEDED, plait.explain(job)
    found: dict[str, Any] = done.result["predictions"][0]
    return found


@pytest.mark.slow
def test_a_pretraining_without_labels_is_what_a_fine_tune_starts_from(plait: Stack, tmp_path: Path) -> None:
    before = ended(
        plait, started(plait, table(tmp_path, labels=False), spec={"task": "contrastive"}, model="clip")
    )
    assert before.state == State.SUCCEEDED, plait.explain(before.id)
    pretrained = before.result["model"]
    assert pretrained.startswith("ft:clip:")
    assert "valid_mrr" in before.result["metrics"]
    vectors = answers(plait, pretrained)
    assert vectors["label"] is None
    assert vectors["embeddings"].keys() == {"name"}
    assert len(vectors["embedding"]) == 8

    tuned = ended(plait, started(plait, table(tmp_path, labels=True), model=pretrained))

    assert tuned.state == State.SUCCEEDED, plait.explain(tuned.id)
    assert tuned.result["model"].startswith("ft:late-fusion:")
    told = [event.message for event in plait.history(tuned.id) if "starts from a model" in event.message]
    assert "trained weights of tower 'name'" in told[0]
    # The new model stands by itself: the one that it came from may go.
    with plait.database.transaction() as session:
        registry.delete(session, TENANT, pretrained)
    assert answers(plait, tuned.result["model"])["label"] in ("a", "b")

    late = ended(plait, started(plait, table(tmp_path, labels=True), model=pretrained))
    assert late.state == State.FAILED
    assert (late.error["code"], late.error["param"]) == ("model_not_found", "model")

"""Multilabel and regression the whole way: the task told by the labels, the spec decided, a model at the end."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from db.tables import Job
from domain.job import Lane, State
from support.encoders import TEXT, tiny_encoders
from support.stack import Stack, stack


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    tiny_encoders(folder / "encoders")
    with stack(folder, encoders=folder / "encoders") as made:
        made.worker(Lane.CPU)
        made.worker(Lane.TRAIN)
        yield made


def submitted(plait: Stack, folder: Path, label: Callable[[int], Any], **multimodal: Any) -> str:
    rows = [{"text": f"{'ab'[n % 2]}{'cd'[n // 2 % 2]} {n}", "label": label(n)} for n in range(40)]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"towers": {"text": {"encoder": TEXT}}, "hyperparameters": {"n_epochs": 2}, **multimodal}
    return plait.submit(plait.upload(path), spec)


def ended(plait: Stack, job_id: str) -> Job:
    return plait.until(job_id, lambda job: job.finished_at is not None)


@pytest.mark.slow
def test_jobs_of_both_new_tasks_succeed_with_every_auto_decided(plait: Stack, tmp_path: Path) -> None:
    many = submitted(plait, tmp_path, lambda n: ["ab"[n % 2], "cd"[n // 2 % 2]], fusion={"type": "gated"})
    measured = submitted(plait, tmp_path, lambda n: 100.5 + n % 4, loss={"type": "mse"})

    for job_id, task, metric in ((many, "multilabel", "f1_macro"), (measured, "regression", "rmse")):
        job = ended(plait, job_id)
        assert job.state == State.SUCCEEDED, plait.explain(job_id)
        assert job.resolved is not None
        assert job.resolved["task"] == task
        assert job.resolved["hyperparameters"]["metric_for_best_model"] == metric
        assert "auto" not in json.dumps(job.resolved)
        assert f"valid_{metric}" in job.result["metrics"]


def test_a_loss_that_the_labels_do_not_fit_ends_the_job_before_training(plait: Stack, tmp_path: Path) -> None:
    job = ended(plait, submitted(plait, tmp_path, lambda n: 100.5 + n % 4, loss={"type": "cross_entropy"}))

    assert job.state == State.FAILED
    assert job.error["param"] == "multimodal.loss.type"
    assert "regression" in job.error["message"]

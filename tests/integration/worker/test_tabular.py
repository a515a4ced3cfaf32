"""A job of numbers and categories alone, from a CSV to predictions: no encoder is asked for."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db.tables import Job
from domain.job import Lane, State
from engine import infer
from support.stack import Stack, stack

SCHEMA = {"columns": {"shop": {"type": "category"}}}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("stack")) as made:
        made.worker(Lane.CPU)
        made.worker(Lane.TRAIN)
        yield made


def submitted(plait: Stack, folder: Path, **multimodal: Any) -> Job:
    path = folder / "rows.csv"
    with path.open("w", newline="") as out:
        table = csv.DictWriter(out, ["row_number", "price", "shop", "label"])
        table.writeheader()
        for n in range(60):
            price = n * 37 % 97
            word = "high" if price > 48 else "low"
            table.writerow(
                {"row_number": n, "price": price if n % 9 else "", "shop": "ab"[n % 2], "label": word}
            )
    hyper = {"n_epochs": 8, "learning_rate": 0.01}
    spec = {"schema": SCHEMA, "hyperparameters": hyper, "fusion": {"dim": 16}, **multimodal}
    job_id = plait.submit(plait.upload(path), spec)
    return plait.until(job_id, lambda job: job.finished_at is not None)


@pytest.mark.slow
def test_a_job_of_numbers_and_categories_leaves_a_model_that_answers(plait: Stack, tmp_path: Path) -> None:
    job = submitted(plait, tmp_path)

    assert job.state == State.SUCCEEDED, plait.explain(job.id)
    assert job.resolved is not None
    assert sorted(job.resolved["towers"]) == ["price", "shop"]
    warned = [issue for event in plait.history(job.id) for issue in (event.data or {}).get("warnings", [])]
    assert [(issue["column"], issue["code"]) for issue in warned] == [("row_number", "high_cardinality")]
    (folder,) = plait.folder.rglob("model/config.json")
    low, high = infer.load(folder.parent).predict([{"price": "3"}, {"price": 90.5, "shop": "z"}])
    assert (low.label, high.label) == ("low", "high")


@pytest.mark.parametrize(
    ("tower", "path"), [({"encoder": "a/b"}, "price.encoder"), ({"image_size": 64}, "price.image_size")]
)
def test_a_tower_that_its_column_does_not_fit_ends_the_job_before_a_training(
    plait: Stack, tmp_path: Path, tower: dict[str, Any], path: str
) -> None:
    job = submitted(plait, tmp_path, towers={"price": tower})

    assert job.state == State.FAILED
    assert (job.error["code"], job.error["param"]) == ("invalid_spec", f"multimodal.towers.{path}")
    assert "column of type number" in job.error["message"]

"""Tables whose cells name uploaded files, over real processes: the child asks its keeper, and hears of its tenant's alone."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db import files, jobs, tenants
from db.tables import File, Job
from domain.ids import new_id
from domain.job import Kind, Lane, Stage, State
from domain.specs import Multimodal
from support.datasets import png, shape
from support.encoders import IMAGE, tiny_encoders
from support.stack import TENANT, Stack, stack

SPEC = {"towers": {"image": {"encoder": IMAGE}}, "hyperparameters": {"n_epochs": 1, "batch_size": 8}}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    tiny_encoders(folder / "encoders")
    with stack(folder, encoders=folder / "encoders") as made:
        with made.database.transaction() as session:
            tenants.ensure(session, "other")
        made.worker(Lane.CPU)
        made.worker(Lane.TRAIN)
        yield made


def picture(plait: Stack, number: int, tenant: str = TENANT, purpose: str = "user_data") -> str:
    """The id of an uploaded picture."""
    path = plait.folder / f"{number}.png"
    path.write_bytes(png(shape(number % 2, 32, np.random.default_rng(number))))
    id_ = new_id("file-")
    with path.open("rb") as stream:
        stored = plait.blobs.write(id_, stream)
    told = {"id": id_, "tenant": tenant, "filename": path.name, "purpose": purpose, "blob": id_}
    with plait.database.transaction() as session:
        files.add(session, File(**told, **stored._asdict()))
    return id_


def table(plait: Stack, folder: Path, cells: Sequence[Any]) -> str:
    path = folder / "rows.jsonl"
    rows = [{"image_file_name": cell, "label": "ab"[n % 2]} for n, cell in enumerate(cells)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return plait.upload(path)


def checked(plait: Stack, file_id: str) -> Job:
    spec = Multimodal.model_validate(SPEC).model_dump(mode="json", by_alias=True)
    new = jobs.Submission(
        tenant=TENANT,
        spec={"file": file_id, "multimodal": spec, "role": "training"},
        kind=Kind.CHECK,
        stage=Stage.RUN,
        lane=Lane.CPU,
        id=new_id("check_"),
    )
    with plait.database.transaction() as session:
        job_id = jobs.submit(session, new).id
    plait.bells.ring(Lane.CPU)
    return plait.until(job_id, lambda job: job.finished_at is not None)


@pytest.mark.slow
def test_a_bare_table_of_ids_is_checked_and_trained_on(plait: Stack, tmp_path: Path) -> None:
    ids = [picture(plait, n) for n in range(12)]
    cells = [*ids[:10], [ids[10], ids[0]], [ids[11], ids[1]]]

    job_id = plait.submit(table(plait, tmp_path, cells), SPEC)
    job = plait.until(job_id, lambda job: job.finished_at is not None)

    assert job.state == State.SUCCEEDED, plait.explain(job_id)


def test_ids_of_others_of_results_and_of_deleted_files_are_unknown(plait: Stack, tmp_path: Path) -> None:
    ids = [picture(plait, n) for n in range(6)]
    deleted = picture(plait, 6)
    with plait.database.transaction() as session:
        files.delete(session, TENANT, deleted)
    strange = [picture(plait, 7, tenant="other"), picture(plait, 8, purpose=files.RESULTS), deleted]

    job = checked(plait, table(plait, tmp_path, [*ids, *strange, new_id("file-")]))

    assert job.state == State.SUCCEEDED, plait.explain(job.id)
    issues = [(i["line"], i["column"], i["code"]) for i in job.result["issues"]]
    assert issues == [(line, "image", "missing_media") for line in (7, 8, 9, 10)]
    said = {i["message"].partition("': ")[2] for i in job.result["issues"]}
    # Nobody learns which of them are there for others.
    assert len(said) == 1


def test_bytes_that_vanish_while_a_job_reads_are_named_by_line(plait: Stack, tmp_path: Path) -> None:
    ids = [picture(plait, n) for n in range(20, 26)]
    # The row is still there, as it is for a child that was told of it before.
    plait.blobs.delete(ids[3])

    job = checked(plait, table(plait, tmp_path, ids))

    (issue,) = job.result["issues"]
    assert (issue["line"], issue["code"]) == (4, "missing_media")
    assert "deleted while the job read" in issue["message"]

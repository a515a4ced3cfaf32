"""Bad rows from the check to the training's report, and checks as jobs, over real processes."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db import files, jobs
from db.tables import File, Job
from domain.errors import Conflict
from domain.ids import new_id
from domain.job import Kind, Lane, Stage, State
from domain.specs import Multimodal
from support.datasets import png, shape, tiny_av
from support.encoders import AUDIO, IMAGE, TEXT, tiny_encoders
from support.parquets import media, parquet
from support.stack import TENANT, Stack, stack

TOWERS = {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO}}
QUICK = {"n_epochs": 1, "batch_size": 8}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    tiny_encoders(folder / "encoders")
    with stack(folder, encoders=folder / "encoders") as made:
        made.worker(Lane.CPU)
        made.worker(Lane.TRAIN)
        yield made


def spoiled(folder: Path) -> tuple[Path, dict[str, int]]:
    """The tiny data set with a row whose label is gone, one that is no JSON, and two whose picture is bad.

    Also what is left of each split once the two bad rows are out.
    """
    with zipfile.ZipFile(tiny_av(folder)) as whole:
        media = {name: whole.read(name) for name in whole.namelist()}
    rows = [json.loads(line) for line in media.pop("metadata.jsonl").decode().splitlines()]
    del rows[3]["label"]
    media[rows[5]["image_file_name"]] = b"no picture"
    del media[rows[10]["image_file_name"]]
    good: dict[str, int] = {}
    for n, row in enumerate(rows):
        if n not in (3, 7):
            good[row["split"]] = good.get(row["split"], 0) + 1
    lines = [json.dumps(row) for row in rows]
    lines[7] = lines[7][:-5]
    path = folder / "spoiled.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("metadata.jsonl", "\n".join(lines) + "\n")
        for name, content in media.items():
            out.writestr(name, content)
    return path, good


def ended(plait: Stack, job_id: str) -> Job:
    return plait.until(job_id, lambda job: job.finished_at is not None)


def results(plait: Stack, job: Job) -> dict[str, str]:
    """The job's result files by name, as far as they are text."""
    with plait.database.reading() as session:
        rows = [files.get(session, TENANT, file_id) for file_id in files.results_of(session, job.id)]
    return {row.filename: plait.blobs.path(row.blob).read_text(errors="replace") for row in rows}


def uploaded(plait: Stack, file_id: str) -> File:
    with plait.database.reading() as session:
        return files.get(session, TENANT, file_id)


@pytest.mark.parametrize(
    ("policy", "skipped", "masked"),
    [pytest.param("skip", 4, 0, marks=pytest.mark.slow), pytest.param("mask", 2, 2, marks=pytest.mark.slow)],
)
def test_a_training_does_without_exactly_the_rows_that_its_check_left_out(
    plait: Stack, tmp_path: Path, policy: str, skipped: int, masked: int
) -> None:
    path, good = spoiled(tmp_path)
    spec = {"towers": TOWERS, "hyperparameters": QUICK, "on_bad_row": policy, "max_bad_fraction": 0.1}

    file_id = plait.upload(path)
    job = ended(plait, plait.submit(file_id, spec))

    assert job.state == State.SUCCEEDED, plait.explain(job.id)
    made = results(plait, job)
    told = {"results.csv", "report.json", "report.html", "events.out.tfevents.0.plait", "issues.jsonl"}
    assert told <= set(made)
    assert "manifest.json" not in made
    report = json.loads(made["report.json"])
    assert report["bad_rows"] == {"skipped": skipped, "masked": masked}
    # Both pictures that are bad belong to rows that train.
    assert report["counts"] == good | {"train": good["train"] - (2 if policy == "skip" else 0)}
    issues = [json.loads(line) for line in made["issues.jsonl"].splitlines()]
    assert {(i["line"], i["code"], i["severity"]) for i in issues} == {
        (4, "label_missing", "warning"),
        (6, "unreadable_media", "warning"),
        (8, "invalid_json", "warning"),
        (11, "missing_media", "warning"),
    }
    told = next(event for event in plait.history(job.id) if event.name == "job.validated")
    words = {"warnings": issues, "warnings_total": 4, "skipped": skipped, "masked": masked}
    assert told.data.items() >= words.items()
    assert uploaded(plait, file_id).issues == {"errors": 0, "warnings": 4}


@pytest.mark.slow
def test_more_bad_rows_than_allowed_end_the_job_in_its_check(plait: Stack, tmp_path: Path) -> None:
    path, _ = spoiled(tmp_path)

    job = ended(plait, plait.submit(plait.upload(path), {"towers": TOWERS, "on_bad_row": "skip"}))

    assert (job.state, job.stage) == (State.FAILED, Stage.VALIDATE)
    assert "too_many_bad_rows" in results(plait, job)["issues.jsonl"]


def submit_check(plait: Stack, file_id: str, role: str = "training", **multimodal: Any) -> str:
    spec = Multimodal.model_validate(multimodal).model_dump(mode="json", by_alias=True)
    new = jobs.Submission(
        tenant=TENANT,
        spec={"file": file_id, "multimodal": spec, "role": role},
        kind=Kind.CHECK,
        stage=Stage.RUN,
        lane=Lane.CPU,
        id=new_id("check_"),
    )
    with plait.database.transaction() as session:
        job_id = jobs.submit(session, new).id
    plait.bells.ring(Lane.CPU)
    return job_id


def test_a_check_of_bad_data_succeeds_and_says_what_is_bad(plait: Stack, tmp_path: Path) -> None:
    file_id = plait.upload(spoiled(tmp_path)[0])

    job = ended(plait, submit_check(plait, file_id, towers=TOWERS))

    assert job.state == State.SUCCEEDED, plait.explain(job.id)
    found = job.result
    assert (found["rows"], found["errors"], found["warnings"], found["issues_total"]) == (47, 4, 0, 4)
    assert found["classes"] == ["class-0", "class-1", "class-2"]
    assert [json.loads(line) for line in results(plait, job)["issues.jsonl"].splitlines()] == found["issues"]
    assert {issue["param"] for issue in found["issues"]} == {"file"}
    file = uploaded(plait, file_id)
    assert (file.status, file.rows, file.issues) == ("error", 47, {"errors": 4, "warnings": 0})


def test_a_check_measures_texts_by_an_encoder_that_is_here(plait: Stack, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"text {n} " + "long" * (n == 3) * 40, "label": "ab"[n % 2]} for n in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    job = ended(plait, submit_check(plait, plait.upload(path), towers={"text": {"encoder": TEXT}}))

    assert [(i["line"], i["code"]) for i in job.result["issues"]] == [(4, "text_too_long")]
    assert "the first 64 tokens" in job.result["issues"][0]["message"]


@pytest.mark.slow
def test_a_check_of_a_good_file_has_a_preview_and_no_issues(plait: Stack, tmp_path: Path) -> None:
    job = ended(plait, submit_check(plait, plait.upload(tiny_av(tmp_path)), role="test"))

    assert (job.result["errors"], job.result["warnings"], job.result["issues"]) == (0, 0, [])
    made = results(plait, job)
    assert set(made) == {"preview.json"}
    shown = json.loads(made["preview.json"])["data"]
    assert [row["line"] for row in shown] == list(range(1, 11))
    assert shown[0]["cells"]["image"]["thumbnail"].startswith("data:image/webp;base64,")
    assert shown[0]["cells"]["audio"]["seconds"] == 0.5


def test_a_parquet_file_with_pictures_inside_is_checked_as_it_was_uploaded(
    plait: Stack, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pictures = [(png(shape(n % 2, 16, rng)), f"{n}.png") for n in range(12)]
    path = tmp_path / "rows.parquet"
    kinds = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    path.write_bytes(parquet({"image": media(pictures), "label": [n % 2 for n in range(12)]}, kinds))

    job = ended(plait, submit_check(plait, plait.upload(path)))

    assert job.state == State.SUCCEEDED, plait.explain(job.id)
    assert (job.result["rows"], job.result["classes"], job.result["errors"]) == (12, ["cat", "dog"], 0)
    shown = json.loads(results(plait, job)["preview.json"])["data"]
    assert shown[1]["cells"]["image"]["name"] == "1.png"


def test_a_check_that_is_cancelled_while_it_reads_ends_soon(plait: Stack, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(f'{{"text": "row {n}", "label": "{n % 2}"}}\n' for n in range(300_000)))
    job_id = submit_check(plait, plait.upload(path))
    plait.until(job_id, lambda job: job.state == State.RUNNING)

    plait.cancel(job_id)

    job = ended(plait, job_id)
    assert (job.state, job.result) == (State.CANCELLED, None)


def test_a_file_stays_while_a_check_waits_to_read_it(plait: Stack, tmp_path: Path) -> None:
    file_id = plait.upload(tiny_av(tmp_path))

    with plait.database.transaction() as session:
        job = jobs.submit(
            session,
            jobs.Submission(
                tenant=TENANT,
                spec={"file": file_id, "multimodal": {}, "role": "training"},
                kind=Kind.CHECK,
                stage=Stage.RUN,
                lane=Lane.BATCH,
                files={file_id: "file"},
            ),
        )
        with pytest.raises(Conflict, match="still reads"):
            files.delete(session, TENANT, file_id)
        jobs.cancel(session, TENANT, job.id)
        files.delete(session, TENANT, file_id)

"""Bad data ends a job in validation, with every problem listed, before any training claim."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from db import files
from db.tables import Job
from domain.job import Lane, Stage, State
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, tiny_encoders
from support.stack import Stack, stack

TOWERS = {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO}}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    tiny_encoders(folder / "encoders")
    with stack(folder, encoders=folder / "encoders") as made:
        made.worker(Lane.CPU)
        yield made


def spoiled(folder: Path, spoil: Callable[[list[str], dict[str, bytes]], None]) -> Path:
    """The tiny data set after `spoil(lines, media)` changed its manifest and members."""
    with zipfile.ZipFile(tiny_av(folder)) as whole:
        media = {name: whole.read(name) for name in whole.namelist()}
    lines = media.pop("metadata.jsonl").decode().splitlines()
    spoil(lines, media)
    target = folder / "spoiled.zip"
    with zipfile.ZipFile(target, "w") as out:
        out.writestr("metadata.jsonl", "\n".join(lines) + "\n")
        for name, content in media.items():
            out.writestr(name, content)
    return target


def edit(line: str, **changes: Any) -> str:
    row = json.loads(line) | changes
    return json.dumps({k: v for k, v in row.items() if v != "-"})


def image_key(line: str) -> str:
    return next(key for key in json.loads(line) if key.startswith("image"))


def run(plait: Stack, path: Path, **multimodal: Any) -> Job:
    spec = {"towers": TOWERS, **multimodal}
    job_id = plait.submit(plait.upload(path), spec)
    return plait.until(job_id, lambda job: job.finished_at is not None or job.stage == Stage.RUN)


def issues_of(plait: Stack, job: Job) -> list[dict[str, Any]]:
    """Every issue, from the job's result file."""
    with plait.database.reading() as session:
        (file_id,) = files.results_of(session, job.id)
    return [json.loads(line) for line in plait.blobs.path(file_id).read_text().splitlines()]


def test_every_problem_of_a_data_set_is_listed_by_line_column_and_code(plait: Stack, tmp_path: Path) -> None:
    def spoil(lines: list[str], media: dict[str, bytes]) -> None:
        key = image_key(lines[0])
        lines[2] = edit(lines[2], **{key: "images/nowhere.png"})
        media[json.loads(lines[4])[key]] = b"this is no picture"
        lines[6] = edit(lines[6], label="-")
        lines[8] = edit(lines[8], **{key: "../../etc/passwd"})
        lines[16] = lines[16][:-5]

    job = run(plait, spoiled(tmp_path, spoil))

    assert (job.state, job.stage) == (State.FAILED, Stage.VALIDATE)
    found = {(i["line"], i["code"]) for i in issues_of(plait, job) if i["severity"] == "error"}
    assert found >= {
        (3, "missing_media"),
        (5, "unreadable_media"),
        (7, "label_missing"),
        (9, "path_escapes_archive"),
        (17, "invalid_json"),
    }
    assert job.error["code"] == "invalid_training_file"


def test_the_failed_event_carries_the_first_twenty_issues(plait: Stack, tmp_path: Path) -> None:
    def spoil(lines: list[str], _media: dict[str, bytes]) -> None:
        lines[:] = [edit(line, **{image_key(line): f"gone-{n}.png"}) for n, line in enumerate(lines)]

    job = run(plait, spoiled(tmp_path, spoil))

    failed = plait.history(job.id)[-1]
    assert failed.name == "job.failed"
    assert len(failed.data["issues"]) == 20
    assert failed.data["issues_total"] == len(issues_of(plait, job)) > 20


def test_a_truncated_zip_is_named_as_such(plait: Stack, tmp_path: Path) -> None:
    whole = tiny_av(tmp_path)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

    job = run(plait, broken)

    assert job.state == State.FAILED
    assert issues_of(plait, job)[0]["code"] in ("unsupported_format", "unreadable_media")


def test_a_tower_for_a_column_that_is_not_there_is_named(plait: Stack, tmp_path: Path) -> None:
    towers = {"photo": TOWERS["image"]}

    job = run(plait, tiny_av(tmp_path), towers=towers)

    assert "missing_column" in {i["code"] for i in issues_of(plait, job)}


def test_an_encoder_that_cannot_be_had_names_the_field_and_the_command(plait: Stack, tmp_path: Path) -> None:
    job = run(plait, tiny_av(tmp_path), towers={"image": {"encoder": "nobody/nothing-at-all"}})

    assert job.error["code"] == "encoder_unavailable"
    assert job.error["param"] == "multimodal.towers.image.encoder"
    assert "plait-server encoders pull nobody/nothing-at-all" in job.error["message"]


def test_an_encoder_folder_outside_the_allowed_ones_is_refused(plait: Stack, tmp_path: Path) -> None:
    job = run(plait, tiny_av(tmp_path), towers={"image": {"encoder": "/etc"}})

    assert job.state == State.FAILED
    assert issues_of(plait, job)[0]["code"] == "encoder_not_allowed"


def test_good_data_waits_for_a_training_worker_and_its_file_says_what_is_in_it(
    plait: Stack, tmp_path: Path
) -> None:
    job = run(plait, tiny_av(tmp_path))

    assert (job.state, job.stage, job.lane) == (State.QUEUED, Stage.RUN, Lane.TRAIN)
    with plait.database.reading() as session:
        file = files.get(session, job.tenant, job.spec["training_file"])
    assert (file.status, file.rows) == ("processed", 48)
    assert file.columns["image"] == "image"


def test_an_empty_zip_is_an_empty_file(plait: Stack, tmp_path: Path) -> None:
    nothing = io.BytesIO()
    zipfile.ZipFile(nothing, "w").close()
    path = tmp_path / "empty.zip"
    path.write_bytes(nothing.getvalue())

    job = run(plait, path)

    assert job.state == State.FAILED
    assert issues_of(plait, job)[0]["code"] in ("empty_file", "unsupported_format")

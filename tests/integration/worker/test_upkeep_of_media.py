"""What upkeep takes away: media that were sent for one answer, once it is given, and what dead processes left."""

import io
import os
import time
from pathlib import Path

import pytest

from db import jobs
from db.artifacts import Artifacts
from db.blobs import open_blobs
from db.blobs.folder import FolderBlobs
from db.session import Database
from db.tables import Model
from settings import Settings
from support.door import Door
from support.predictions import LARGE, answered, claimed, data_url, registered, submitted
from worker.upkeep import blobs as unnamed_blobs
from worker.upkeep import media, models


@pytest.fixture
def door(database: Database, tmp_path: Path) -> Door:
    return Door(database, Settings(data=tmp_path / "data"))


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_the_media_of_a_prediction_go_once_it_is_over_and_not_before(door: Door) -> None:
    model, blobs = registered(door.database), open_blobs(door.settings)
    row = {"image": data_url(LARGE), "sound": data_url(LARGE + b".")}
    done, cancelled, waiting = (submitted(door, model, row)["id"] for _ in range(3))
    uploaded = door.file()
    answered(door, claimed(door))
    with door.database.transaction() as session:
        jobs.cancel(session, "a", cancelled)

    gone = media.sweep(door.database, blobs)

    assert gone == 2
    left = sorted(path.name for path in door.blobs())
    assert left == sorted([f"0-of-{waiting}", f"1-of-{waiting}", uploaded])
    assert done not in "".join(left)


def test_bytes_that_never_got_a_row_go_after_an_hour(door: Door) -> None:
    blobs = open_blobs(door.settings)
    for key in ("0-of-pred_young", "0-of-pred_old"):
        blobs.write(key, io.BytesIO(b"x"))
    age(blobs.path("0-of-pred_old"), 3700)

    media.sweep(door.database, blobs)

    assert [path.name for path in door.blobs()] == ["0-of-pred_young"]


def test_what_a_dead_process_was_writing_goes_after_a_day(door: Door) -> None:
    root = door.settings.data / "blobs"
    for name, seconds in (("young", 3600), ("old", 90_000)):
        (root / f".form-{name}").mkdir(parents=True)
        (root / f".form-{name}" / "0").write_bytes(b"x")
        (root / "aa").mkdir(exist_ok=True)
        (root / "aa" / f".part-{name}").write_bytes(b"x")
        age(root / f".form-{name}", seconds)
        age(root / "aa" / f".part-{name}", seconds)

    media.sweep(door.database, FolderBlobs(root))

    assert sorted(path.name for path in root.rglob(".*")) == [".form-young", ".part-young"]


def test_a_folder_that_is_not_there_holds_nothing(database: Database, tmp_path: Path) -> None:
    assert media.sweep(database, FolderBlobs(tmp_path / "none")) == 0


def test_the_bytes_of_a_deleted_model_go_when_nobody_can_be_reading_them(door: Door) -> None:
    artifacts = Artifacts(door.settings.data / "artifacts")
    kept, young, old = (registered(door.database, ref=f"jobs/{n}/1-a/model") for n in range(3))
    for n in range(3):
        (artifacts.path(f"jobs/{n}/1-a/model")).mkdir(parents=True)
        (artifacts.path(f"jobs/{n}/1-a/model") / "model.safetensors").write_bytes(b"weights")
    for model in (young, old):
        assert door.send("DELETE", f"/v1/models/{model}").status_code == 200
    with door.database.transaction() as session:
        session.get_one(Model, old).deleted_at -= 3700

    gone = [models.sweep(door.database, artifacts) for _ in range(2)]

    assert gone == [1, 0]
    assert sorted(path.parts[-4] for path in artifacts.root.rglob("model.safetensors")) == ["0", "1"]
    assert door.get(f"/v1/models/{kept}").status_code == 200


def test_blobs_that_no_file_names_go_after_a_day(door: Door) -> None:
    blobs, kept = open_blobs(door.settings), door.file()
    for key in ("file-old", "file-young"):
        blobs.write(key, io.BytesIO(b"x"))
    for key in ("file-old", kept):
        age(blobs.path(key), 2 * 86_400)

    gone = unnamed_blobs.sweep(door.database, blobs)

    assert gone == 1
    assert sorted(path.name for path in door.blobs()) == sorted([kept, "file-young"])

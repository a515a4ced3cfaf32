"""Models over HTTP, and what machines ask of the process."""

import io
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from sqlalchemy import text, update

from api.app import create_app
from api.zipped import zipped
from db import jobs
from db.artifacts import seal
from db.session import Database
from db.tables import Job, Model
from domain.access import ALL_SCOPES, Scope
from domain.families import FAMILIES, PRESETS
from settings import Settings
from support.door import Door

NAME = "ft:late-fusion:a:my-suffix:abcdefgh"


@pytest.fixture
def model(door: Door) -> str:
    spec = {"model": "late-fusion", "training_file": "file-1", "multimodal": {}}
    with door.database.transaction() as session:
        job = jobs.submit(session, jobs.Submission(tenant="a", spec=spec))
        session.add(Model(id=NAME, tenant="a", job=job.id, family="late-fusion", ref="jobs/x/1"))
    return NAME


def test_a_tenants_models_are_listed_before_the_families(door: Door, model: str) -> None:
    answer = door.get("/v1/models").json or {}

    assert [(entry["id"], entry["owned_by"]) for entry in answer["data"]] == [
        (model, "a"),
        *((name, "plait") for name in FAMILIES + PRESETS),
    ]
    assert answer["has_more"] is False


@pytest.mark.parametrize("name", [NAME, NAME.replace(":", "%3A"), "late-fusion"])
def test_a_model_is_found_by_its_name(door: Door, model: str, name: str) -> None:
    answer = door.get(f"/v1/models/{name}").json or {}

    assert answer["object"] == "model"
    assert isinstance(answer["created"], int)


def test_another_tenants_model_is_as_absent_as_none(door: Door, model: str) -> None:
    answer = door.get(f"/v1/models/{model}", key=door.new_key("b"))

    assert answer.status_code == 404
    assert answer.json is not None
    assert answer.json["error"]["code"] == "model_not_found"


def test_a_fine_tuned_model_tells_where_it_came_from(door: Door, model: str) -> None:
    with door.database.transaction() as session:
        resolved = {"classes": ["a", "b"], "towers": {"text": {}, "image": {}}}
        values = {"result": {"metrics": {"test_accuracy": 0.9}}, "resolved": resolved}
        session.execute(update(Job).values(**values))

    answer = door.get(f"/v1/models/{model}").json or {}

    assert (answer["family"], answer["classes"]) == ("late-fusion", ["a", "b"])
    assert answer["columns"] == ["image", "text"]
    assert answer["metrics"] == {"test_accuracy": 0.9}
    assert answer["job"].startswith("ftjob-")
    assert (door.get("/v1/models").json or {})["data"][0] == answer


def test_a_deleted_model_is_gone(door: Door, model: str) -> None:
    answer = door.send("DELETE", f"/v1/models/{model}")

    assert answer.json == {"id": model, "object": "model", "deleted": True}
    assert door.get(f"/v1/models/{model}").status_code == 404
    assert door.send("DELETE", f"/v1/models/{model}").status_code == 404
    listed = [entry["id"] for entry in (door.get("/v1/models").json or {})["data"]]
    assert listed == list(FAMILIES + PRESETS)


def test_only_its_owner_deletes_a_model_and_nobody_a_family(door: Door, model: str) -> None:
    reader = door.new_key("a", ALL_SCOPES - {Scope.MODELS_WRITE})

    statuses = [
        door.send("DELETE", f"/v1/models/{model}", key=door.new_key("b")).status_code,
        door.send("DELETE", f"/v1/models/{model}", key=reader).status_code,
        door.send("DELETE", "/v1/models/late-fusion").status_code,
    ]

    assert statuses == [404, 403, 403]
    assert door.get(f"/v1/models/{model}").status_code == 200


@pytest.fixture
def folder(door: Door, model: str) -> Path:
    made = door.settings.data / "artifacts" / "jobs" / "x" / "1"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 10_000)
    seal(made)
    (made / "link").symlink_to("/etc/passwd")
    return made


def test_a_model_is_downloaded_as_a_zip_of_its_folder(door: Door, model: str, folder: Path) -> None:
    answer = door.get(f"/v1/models/{model}/download")

    with ZipFile(io.BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["config.json", "manifest.json", "model.safetensors"]
        assert archive.read("model.safetensors") == (folder / "model.safetensors").read_bytes()
    assert answer.content_type == "application/zip"
    assert (
        "attachment; filename=ft-late-fusion-a-my-suffix-abcdefgh.zip"
        in answer.headers["Content-Disposition"]
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_a_large_model_is_never_whole_in_memory(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(5_000_000))

    assert max(len(part) for part in zipped(tmp_path, 1e9)) < 1_100_000


def test_a_download_of_what_is_not_there_is_a_404(door: Door, model: str) -> None:
    for name in (model, "late-fusion", "ft:none"):
        assert door.get(f"/v1/models/{name}/download").status_code == 404


def test_another_tenants_model_is_not_downloaded(door: Door, model: str, folder: Path) -> None:
    assert door.get(f"/v1/models/{model}/download", key=door.new_key("b")).status_code == 404


def test_health_asks_nobody_and_needs_no_key(tmp_path: Path) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none", timeout_s=1.0)

    answer = create_app(Settings(data=tmp_path), away).test_client().get("/healthz")

    assert answer.json == {"status": "ok"}
    away.close()


def test_a_service_with_its_parts_is_ready(door: Door) -> None:
    assert door.client.get("/readyz").json == {"status": "ready", "database": "ok", "broker": "none"}


def test_without_its_broker_it_is_degraded_but_ready(database: Database, tmp_path: Path) -> None:
    door = Door(database, replace(Settings(data=tmp_path), redis_url="redis://127.0.0.1:1"))
    door.bells.is_ready = False

    answer = door.client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json == {"status": "degraded", "database": "ok", "broker": "down"}


def test_with_another_schema_it_is_not_ready(door: Door) -> None:
    with door.database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'other'"))

    answer = door.client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["error"]["code"] == "schema_outdated"


def test_without_its_database_it_is_not_ready(tmp_path: Path) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none", timeout_s=1.0)

    answer = create_app(Settings(data=tmp_path), away).test_client().get("/readyz")

    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["error"]["code"] == "database_unavailable"
    away.close()

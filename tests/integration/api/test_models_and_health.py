"""Models over HTTP, and what machines ask of the process."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from api.app import create_app
from db import jobs
from db.session import Database
from db.tables import Model
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
        ("late-fusion", "plait"),
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

"""Every answer that is no success has the one shape, whatever went wrong and wherever."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.app import create_app
from db.session import Database
from domain.access import Scope
from settings import Settings
from support.databases import migrated
from support.door import Door


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """Over SQLite alone: what goes wrong here goes wrong before any database."""
    settings = Settings(data=tmp_path / "data", max_upload_bytes=100_000)
    with migrated(f"sqlite:///{tmp_path / 'plait.db'}") as database:
        yield Door(database, settings)


def shape_of(answer: TestResponse) -> dict[str, Any]:
    """The `error` of an answer, after a look at everything around it."""
    body = answer.json
    assert body is not None
    assert set(body) <= {"error", "errors"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert answer.content_type == "application/json"
    assert answer.headers["x-request-id"]
    return dict(body["error"])


def test_an_unknown_address_is_a_404(door: Door) -> None:
    answer = door.get("/v1/nothing")

    assert answer.status_code == 404
    assert shape_of(answer)["type"] == "not_found_error"


def test_a_doubled_slash_is_a_404_and_no_redirect(door: Door) -> None:
    answer = door.get("/v1//files")

    assert answer.status_code == 404
    shape_of(answer)


@pytest.mark.parametrize("path", ["checkpoints", "metrics", "logs", "events"])
def test_what_hangs_on_a_job_that_never_was_is_a_404(door: Door, path: str) -> None:
    assert door.get(f"/v1/fine_tuning/jobs/ftjob-x/{path}").status_code == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE"])
def test_a_wrong_method_is_a_405_that_names_the_right_ones(door: Door, method: str) -> None:
    answer = door.send(method, "/v1/files")

    assert answer.status_code == 405
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))
    assert shape_of(answer)["code"] == "method_not_allowed"


def test_a_body_that_is_too_large_is_a_413(door: Door) -> None:
    answer = door.send("POST", "/v1/fine_tuning/jobs", json={"suffix": "x" * 5_000_000})

    assert answer.status_code == 413
    assert shape_of(answer)["code"] == "too_large"


def test_a_body_of_another_kind_is_a_415(door: Door) -> None:
    answer = door.send("POST", "/v1/fine_tuning/jobs", data="model: late-fusion", content_type="text/yaml")

    assert answer.status_code == 415
    assert shape_of(answer)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"late-fusion"',
        b"null",
        b'{"seed": NaN}',
        b'{"seed": 1e999}',
        b'{"seed": ' + b"1" * 5000 + b"}",
        b'{"suffix": "\\u0000"}',
        b'{"suffix": "\\ud800"}',
        b'{"\\u0000": 1}',
        b'{"suffix": "\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' * 60 + b"1" + b"}" * 60,
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_json_object_is_a_400(door: Door, body: bytes) -> None:
    answer = door.send("POST", "/v1/fine_tuning/jobs", data=body, content_type="application/json")

    assert answer.status_code == 400
    assert shape_of(answer)["code"] == "invalid_json"


@pytest.mark.parametrize("path", ["/v1/files/%00", "/v1/files?after=%00", "/v1/models/a%00b"])
def test_a_nul_in_the_address_is_a_400(door: Door, path: str) -> None:
    answer = door.get(path)

    assert answer.status_code == 400
    assert shape_of(answer)["code"] == "invalid_address"


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1.5", "ten", "", "٣", "9" * 400])
def test_a_limit_that_is_none_is_a_400(door: Door, limit: str) -> None:
    answer = door.get("/v1/fine_tuning/jobs", query_string={"limit": limit})

    assert answer.status_code == 400
    assert shape_of(answer)["param"] == "limit"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "plait-abc", "Bearer plait-\xff"])
def test_without_a_good_key_the_answer_is_a_401(door: Door, header: str) -> None:
    answer = door.client.get("/v1/files", headers={"Authorization": header})

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert shape_of(answer) | {"message": ""} == {
        "message": "",
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }


def test_a_key_that_has_expired_is_a_401(door: Door) -> None:
    expired = door.new_key("a", expires_in_s=-1)

    answer = door.get("/v1/files", key=expired)

    assert answer.status_code == 401
    assert "expired" in shape_of(answer)["message"]


def test_a_key_without_the_scope_is_a_403(door: Door) -> None:
    reader = door.new_key("a", scopes=frozenset({Scope.FILES_READ}))

    read, written = door.get("/v1/files", key=reader), door.upload(key=reader)

    assert read.status_code == 200
    assert written.status_code == 403
    assert shape_of(written)["type"] == "permission_error"
    assert door.blobs() == []


def test_a_failure_of_ours_is_a_500_that_tells_nothing_but_the_request_id(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    door.app.add_url_rule("/broken", view_func=lambda: {}["secret"])

    with caplog.at_level(logging.ERROR):
        answer = door.get("/broken", headers={"x-request-id": "mine-1"})

    assert answer.status_code == 500
    assert shape_of(answer)["type"] == "api_error"
    assert "mine-1" in answer.text
    assert "secret" not in answer.text
    assert any(r.exc_info and "secret" in str(r.exc_info[1]) for r in caplog.records)


def test_a_full_disk_is_a_503(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("db.blobs.folder.os.replace", full)

    answer = door.upload()

    assert answer.status_code == 503
    assert shape_of(answer)["code"] == "no_space"
    assert door.blobs() == []


def test_a_database_that_is_away_is_a_503_with_a_time_to_come_back(tmp_path: Path) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none", timeout_s=1.0)
    client = create_app(Settings(data=tmp_path), away).test_client()

    answer = client.get("/v1/files", headers={"Authorization": "Bearer plait-x"})

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert shape_of(answer)["code"] == "database_unavailable"
    away.close()


def test_a_request_id_that_is_well_formed_is_kept(door: Door) -> None:
    assert door.get("/healthz", headers={"x-request-id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"


@pytest.mark.parametrize("given", ["a b", "x" * 129, "<script>", "é"])
def test_a_request_id_that_is_not_is_replaced(door: Door, given: str) -> None:
    answer = door.get("/healthz", headers={"x-request-id": given})

    assert answer.headers["x-request-id"].startswith("req_")

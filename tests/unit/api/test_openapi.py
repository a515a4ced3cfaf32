"""The OpenAPI document says what is served, and says it validly."""

import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.app import create_app
from db.session import Database
from settings import Settings


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    # Nothing here asks the database: it is not even made.
    return create_app(Settings(data=tmp_path), Database(f"sqlite:///{tmp_path / 'none.db'}"))


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    return dict(app.test_client().get("/openapi.json").json or {})


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    assert document["openapi"].startswith("3.1")


def test_every_route_is_documented(app: Flask, document: dict[str, Any]) -> None:
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }

    documented = {(path, method) for path, methods in document["paths"].items() for method in methods}

    assert documented == served


def test_every_operation_tells_its_errors_and_whether_it_asks_for_a_key(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            wanted = {"200", "500"} | ({"401", "403", "503"} if path.startswith("/v1/") else set())
            assert wanted <= set(operation["responses"])
            assert bool(operation["security"]) is path.startswith("/v1/")
            assert operation["summary"]


def test_later_routes_are_not_promised(document: dict[str, Any]) -> None:
    assert sorted(document["paths"]) == [
        "/healthz",
        "/openapi.json",
        "/readyz",
        "/v1/api_keys",
        "/v1/api_keys/{key_id}",
        "/v1/api_keys/{key_id}/rotate",
        "/v1/audit_events",
        "/v1/files",
        "/v1/files/{file_id}",
        "/v1/files/{file_id}/content",
        "/v1/files/{file_id}/validate",
        "/v1/fine_tuning/jobs",
        "/v1/fine_tuning/jobs/{job_id}",
        "/v1/fine_tuning/jobs/{job_id}/cancel",
        "/v1/fine_tuning/jobs/{job_id}/checkpoints",
        "/v1/fine_tuning/jobs/{job_id}/events",
        "/v1/fine_tuning/jobs/{job_id}/logs",
        "/v1/fine_tuning/jobs/{job_id}/metrics",
        "/v1/fine_tuning/jobs/{job_id}/pause",
        "/v1/fine_tuning/jobs/{job_id}/resume",
        "/v1/jobs",
        "/v1/jobs/{job_id}",
        "/v1/jobs/{job_id}/cancel",
        "/v1/jobs/{job_id}/pause",
        "/v1/jobs/{job_id}/resume",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/models/{model}/download",
        "/v1/predictions",
        "/v1/predictions/{prediction_id}",
        "/v1/predictions/{prediction_id}/cancel",
        "/v1/uploads",
        "/v1/uploads/{upload_id}",
        "/v1/uploads/{upload_id}/cancel",
        "/v1/uploads/{upload_id}/complete",
        "/v1/uploads/{upload_id}/parts",
        "/v1/webhook_endpoints",
        "/v1/webhook_endpoints/{endpoint_id}",
        "/v1/webhook_endpoints/{endpoint_id}/deliveries",
        "/v1/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}",
        "/v1/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver",
        "/v1/webhook_endpoints/{endpoint_id}/rotate_secret",
        "/v1/webhook_endpoints/{endpoint_id}/test",
        "/v1/webhook_event_types",
    ]


def test_an_upload_is_documented_with_its_file(document: dict[str, Any]) -> None:
    form = document["components"]["schemas"]["UploadForm"]

    assert {"file", "purpose", "schema"} == set(form["properties"])
    assert set(form["required"]) == {"file", "purpose"}


def test_a_prediction_is_documented_with_both_bodies_and_both_answers(document: dict[str, Any]) -> None:
    operation = document["paths"]["/v1/predictions"]["post"]

    assert set(operation["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"200", "202", "404", "413", "422", "429"} <= set(operation["responses"])
    assert {"Location", "Retry-After"} <= set(operation["responses"]["202"]["headers"])
    assert ("Prefer", "header") in {(p["name"], p["in"]) for p in operation["parameters"]}
    assert document["components"]["schemas"]["Row"]["additionalProperties"]["anyOf"]


def test_whatever_takes_a_body_tells_that_it_may_be_too_large(document: dict[str, Any]) -> None:
    taking = [
        one for methods in document["paths"].values() for one in methods.values() if "requestBody" in one
    ]

    assert taking
    assert [one["operationId"] for one in taking if "413" not in one["responses"]] == []


def test_a_download_tells_of_the_copy_that_its_caller_has(document: dict[str, Any]) -> None:
    told = document["paths"]["/v1/files/{file_id}/content"]["get"]

    assert {"200", "206", "304", "307"} <= set(told["responses"])
    assert "content" not in told["responses"]["304"]

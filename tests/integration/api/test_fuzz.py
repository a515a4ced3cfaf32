"""Whatever is sent to whichever operation of the OpenAPI document: no 5xx, no status, type or shape that it does not tell.

The bytes are chosen by schemathesis, from the document and against it; ids are invented ones and real ones.
"""

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.schemas import OpenApiSchema

from api import waiting
from api.app import GROUPS
from api.openapi import document
from settings import Settings
from support.databases import fresh
from support.door import Door

load_all_checks()
DOCUMENT = document(chain(*GROUPS))
LABELS = [operation.ok().label for operation in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
TOLD = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("fuzz")
    with fresh(request.param, folder) as database:
        yield Door(database, Settings(data=folder / "data", max_upload_bytes=100_000))


@pytest.fixture(scope="module")
def schema(door: Door) -> OpenApiSchema:
    return schemathesis.openapi.from_wsgi("/openapi.json", door.app)


@pytest.fixture
def real(door: Door) -> dict[str, Any]:
    """Ids of what is there, by the name of the parameter."""
    job = door.submit().get_json()["id"]
    door.send("POST", f"/v1/jobs/{job}/cancel")
    upload = {"bytes": 9, "filename": "a.csv", "mime_type": "text/csv", "purpose": "fine-tune"}
    begun = {
        "upload_id": door.send("POST", "/v1/uploads", json=upload).get_json()["id"],
        "key_id": door.send("POST", "/v1/api_keys", json={}).get_json()["id"],
    }
    return {"file_id": door.file(), "job_id": job, "model": "late-fusion", **begun, **_endpoint(door)}


def _endpoint(door: Door) -> dict[str, str]:
    """A webhook endpoint, which an earlier case may have left, with a message."""
    hooks = "/v1/webhook_endpoints"
    known = door.get(hooks).get_json()["data"]
    one = known[0] if known else door.send("POST", hooks, json={"url": "https://8.8.8.8/"}).get_json()
    door.send("POST", f"{hooks}/{one['id']}", json={"enabled": True})
    sent = door.send("POST", f"{hooks}/{one['id']}/test", headers={"Prefer": "wait=0"}).get_json()
    return {"endpoint_id": one["id"], "delivery_id": sent["delivery"]}


def fuzz(door: Door, operation: APIOperation, real: dict[str, Any], examples: int) -> None:
    """Sends cases that fit the document, cases that do not, and both with ids of what is there."""
    ids = {name: real[name] for name in re.findall(r"{(\w+)}", operation.path) if name in real}
    takes = (operation.body, operation.query, operation.path_parameters, operation.headers)
    # Nothing can be wrong with a request that has nothing in it.
    modes = [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if any(map(list, takes)) else [])]
    for mode in modes:
        for some in ({}, ids) if ids else ({},):
            _send(door, operation.as_strategy(mode, path_parameters=some), examples)


def _send(door: Door, cases: SearchStrategy[schemathesis.Case], examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def send(case: schemathesis.Case) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {door.key}"}, checks=TOLD)

    send()


# The bytes of a file are not closed by a client that only looks at them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("examples", [5, pytest.param(25, marks=pytest.mark.slow)])
def test_an_operation_answers_only_what_the_document_tells(
    label: str,
    examples: int,
    door: Door,
    schema: OpenApiSchema,
    real: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "LONGEST_S", 0)
    method, _, path = label.partition(" ")

    fuzz(door, schema[path][method], real, examples)

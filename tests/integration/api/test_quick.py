"""A job that is asked for again and again: the short way says what the long way says, and never what is no longer so."""

from typing import Any

import pytest
from sqlalchemy import update

from db import glances, jobs
from db.tables import File, Job, ResultFile
from domain.access import Scope
from domain.ids import new_id
from support.door import Door

PATHS = ("/v1/fine_tuning/jobs", "/v1/jobs")
#: Something else for a column of each type.
OTHER: dict[str, Any] = {
    "str": "running",
    "int": 7,
    "float": 7.0,
    "JSON": {"multimodal": {"other": 1}, "code": "c"},
}


def made(door: Door) -> str:
    return str((door.submit().json or {})["id"])


def without_id(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers if name not in ("x-request-id", "Date")}


@pytest.mark.parametrize("path", PATHS)
def test_the_short_way_says_what_the_long_way_says(door: Door, path: str) -> None:
    job_id = made(door)

    # A query of the address makes it the long way.
    long, short = door.get(f"{path}/{job_id}?x=1"), door.get(f"{path}/{job_id}")
    tag = {"If-None-Match": short.headers["ETag"]}
    long_same, short_same = (
        door.get(f"{path}/{job_id}?x=1", headers=tag),
        door.get(f"{path}/{job_id}", headers=tag),
    )

    assert (short.status_code, short.data) == (long.status_code, long.data) == (200, short.data)
    assert without_id(short.headers) == without_id(long.headers)
    assert (short_same.status_code, short_same.data) == (long_same.status_code, b"") == (304, b"")
    assert without_id(short_same.headers) == without_id(long_same.headers)


@pytest.mark.parametrize("path", PATHS)
def test_the_short_way_refuses_what_the_long_way_refuses(door: Door, path: str) -> None:
    job_id = made(door)
    stranger = door.new_key("b")
    blind = door.new_key("a", scopes=frozenset({Scope.FILES_READ}))
    for key in (stranger, blind):
        door.get("/v1/models", key=key)

    assert door.get(f"{path}/{job_id}", key=stranger).status_code == 404
    assert door.get(f"{path}/{job_id}", key=blind).status_code == 403
    assert door.get(f"{path}/{job_id}", key="plait-none").status_code == 401
    assert door.get(f"{path}/ftjob-none").json["error"]["code"] == "job_not_found"  # type: ignore[index]
    assert door.get(f"{path}/{job_id}", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    "column", [c.key for c in Job.__mapper__.column_attrs if c.key not in ("id", "tenant")]
)
def test_a_change_of_any_column_is_another_version(door: Door, column: str) -> None:
    job_id = made(door)
    kind = type(getattr(Job, column).type).__name__
    value = OTHER[
        {"String": "str", "Text": "str", "Integer": "int", "BigInteger": "int", "Float": "float"}.get(
            kind, "JSON"
        )
    ]
    value = {"kind": "check", "stage": "run", "lane": "train", "want": "pause"}.get(column, value)
    before = glances.take(door.database, "a", job_id).version

    with door.database.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values({column: value}))

    is_seen = column != "lease_until"
    assert (glances.take(door.database, "a", job_id).version != before) is is_seen


def test_a_job_that_moves_up_and_one_with_a_new_file_are_other_versions(door: Door) -> None:
    first, second = made(door), made(door)
    seen = [glances.take(door.database, "a", second)]
    with door.database.transaction() as session:
        jobs.cancel(session, "a", first)
    seen.append(glances.take(door.database, "a", second))
    with door.database.transaction() as session:
        about = {"filename": "f", "purpose": "fine-tune", "bytes": 1, "sha256": "0", "blob": "b"}
        file = File(id=new_id("file-"), tenant="a", **about)
        session.add(file)
        session.flush()
        session.add(ResultFile(job=second, file=file.id, position=0))
    seen.append(glances.take(door.database, "a", second))

    assert [glance.position for glance in seen] == [1, 0, 0]
    assert [glance.result_files for glance in seen] == [[], [], [file.id]]
    assert len({glance.version for glance in seen}) == 3

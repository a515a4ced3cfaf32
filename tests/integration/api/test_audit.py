"""The audit: each use of a key that changed something left one row, and nothing else did."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, update

from api.routes import Route
from db import audit
from db.session import now
from db.tables import Audit
from settings import Settings
from support.databases import migrated
from support.door import Door
from support.owned import READY, WITH_KEY, Owner
from worker.upkeep import audits

CHANGING = [route for route in WITH_KEY if route.method != "GET"]


def rows(door: Door) -> list[Audit]:
    with door.database.reading() as session:
        return list(session.scalars(select(Audit).order_by(Audit.created_at)))


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    folder = tmp_path_factory.mktemp("audit")
    with migrated(f"sqlite:///{folder / 'plait.db'}") as database:
        yield Owner(Door(database, Settings(data=folder / "data", max_upload_bytes=100_000)), "a")


@pytest.mark.parametrize("route", CHANGING, ids=lambda route: route.name)
def test_every_route_that_changes_something_leaves_one_row(route: Route, owner: Owner) -> None:
    ids: dict[str, str] = {}
    for name in route.parameters:
        ids[name] = owner.make(name, dict(ids))
    READY.get(route.name, lambda *_: None)(owner, ids)
    sent = owner.good(route, ids)
    known = {row.id for row in rows(owner.door)}

    answer = owner.ask(route, ids, **sent)

    assert answer.status_code < 300, answer.text
    (row,) = [row for row in rows(owner.door) if row.id not in known]
    assert (row.tenant, row.action) == ("a", route.name)
    assert row.request_id == answer.headers["x-request-id"]
    assert row.address == "127.0.0.1"
    assert row.object_id in ids.values() or f'"{row.object_id}"' in answer.text


def test_a_refused_request_and_one_that_only_looks_leave_no_row(door: Door) -> None:
    door.file()
    known = len(rows(door))

    refused = [
        door.send("DELETE", "/v1/files/file-none"),
        door.submit({"training_file": "file-none"}),
        door.send("POST", "/v1/fine_tuning/jobs", json={"nonsense": 1}),
        door.send("POST", "/v1/api_keys", json={"scopes": ["nonsense"]}),
    ]
    looked = door.get("/v1/files")

    assert [answer.status_code for answer in refused] == [404, 400, 400, 400]
    assert looked.status_code == 200
    assert len(rows(door)) == known


def test_a_request_that_is_sent_twice_with_its_key_leaves_one_row(door: Door) -> None:
    file_id = door.file()
    body: dict[str, Any] = {"model": "late-fusion", "training_file": file_id}
    known = len(rows(door))

    first, again = (door.submit(body, headers={"Idempotency-Key": "k"}) for _ in range(2))

    assert (first.json or {})["id"] == (again.json or {})["id"]
    assert [row.object_id for row in rows(door)[known:]] == [(first.json or {})["id"]]


def test_the_audit_is_read_page_by_page_and_by_its_own_scope(door: Door) -> None:
    made = [door.file() for _ in range(3)]

    first = door.get("/v1/audit_events", query_string={"limit": 2}).json or {}
    rest = door.get("/v1/audit_events", query_string={"limit": 2, "after": first["last_id"]}).json or {}

    events = first["data"] + rest["data"]
    assert [event["object_id"] for event in events] == made[::-1]
    assert {event["action"] for event in events} == {"files.create"}
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_a_tenant_reads_its_own_audit_only(door: Door) -> None:
    door.file()

    theirs = door.get("/v1/audit_events", key=door.new_key("b")).json or {}

    assert theirs["data"] == []


def test_old_rows_are_forgotten_and_young_ones_kept(door: Door) -> None:
    door.file()
    door.file(key=door.new_key("b"))
    young = door.file()
    with door.database.transaction() as session:
        session.execute(update(Audit).where(Audit.object_id != young).values(created_at=now() - 31 * 86_400))

    assert audits.sweep(door.database, days=0) == 0
    assert [audits.sweep(door.database, days=30) for _ in range(2)] == [2, 0]
    assert [row.object_id for row in rows(door)] == [young]


def test_the_newest_rows_of_all_tenants_are_listed_for_the_operator(door: Door) -> None:
    mine, theirs = door.file(), door.file(key=door.new_key("b"))

    with door.database.reading() as session:
        both = [row.object_id for row in audit.latest(session, within_s=60)]
        one = [row.object_id for row in audit.latest(session, tenant="b")]
        newest = [row.object_id for row in audit.latest(session, limit=1)]

    assert both == [theirs, mine]
    assert (one, newest) == ([theirs], [theirs])

"""Another tenant's ids, walked through all that is served: in addresses, in queries, in bodies. And keys that may not.

What is walked is read from the registry of routes: a route, a list or a field that is new and that
`support.owned` does not know fails here.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from api.routes import Route
from db import files, tenants
from db.tables import File
from domain.access import ALL_SCOPES
from settings import Settings
from support import owned
from support.databases import migrated
from support.door import Door
from support.owned import AFTER, MAKERS, NAMED, NOT_NAMED, ROUTES, WITH_KEY, Ids, Owner, never
from support.predictions import predict, spec_of

_LOOKS_LIKE_AN_ID = re.compile(r"(^|[._])(id|ids|file|file_id|files|model|job|checkpoint|endpoint)$")
_OURS_IS_NO_ID = "metric_for_best_model"
PAGED = [route for route in ROUTES if any(p.name == "after" for p in route.query)]
BY_ID = [route for route in WITH_KEY if route.parameters]
WALKS = [(route, inner) for route in BY_ID for inner in range(len(route.parameters))]


def name_of(given: Any) -> str | None:
    return given.name if isinstance(given, Route) else None


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("walk")
    with migrated(f"sqlite:///{folder / 'plait.db'}") as database:
        yield Door(database, Settings(data=folder / "data", max_upload_bytes=100_000))


@pytest.fixture(scope="module")
def theirs(door: Door) -> Owner:
    return Owner(door, "a")


@pytest.fixture(scope="module")
def ours(door: Door) -> Owner:
    return Owner(door, "b")


def ids_of(owner: Owner, route: Route) -> dict[str, str]:
    """The ids of objects of the owner's, as many as the route's address names."""
    ids: dict[str, str] = {}
    for name in route.parameters:
        assert name in MAKERS, f"{route.name}: say in support/owned.py how an object for <{name}> is made"
        ids[name] = owner.has(name, dict(ids))
    return ids


def told(answer: TestResponse, id_: str) -> tuple[int, str]:
    return answer.status_code, answer.text.replace(id_, "<id>")


@pytest.mark.parametrize(("route", "place"), WALKS, ids=name_of)
def test_another_tenants_object_is_as_absent_as_one_that_never_was(
    route: Route, place: int, theirs: Owner, ours: Owner
) -> None:
    name = route.parameters[place]
    foreign = ids_of(theirs, route)[name]
    own = ids_of(ours, route)
    sent = [ours.good(route, own) for _ in range(2)]
    before = owned.everything(ours.door)

    answer = ours.ask(route, own | {name: foreign}, **sent[0])
    absent = ours.ask(route, own | {name: never(foreign)}, **sent[1])

    assert answer.status_code == 404, answer.text
    assert (answer.json or {})["error"]["code"] != "unknown_url"
    assert told(answer, foreign) == told(absent, never(foreign))
    assert owned.everything(ours.door) == before


@pytest.mark.parametrize("route", BY_ID, ids=name_of)
def test_all_ids_of_an_address_may_be_another_tenants_and_nothing_is_told(
    route: Route, theirs: Owner, ours: Owner
) -> None:
    foreign: Ids = ids_of(theirs, route)
    sent = ours.good(route, ids_of(ours, route))
    before = owned.everything(ours.door)

    answer = ours.ask(route, foreign, **sent)

    assert answer.status_code == 404, answer.text
    assert theirs.tenant not in re.findall(r"\w+", answer.text.replace(foreign[route.parameters[-1]], ""))
    assert owned.everything(ours.door) == before


@pytest.mark.parametrize("route", PAGED, ids=name_of)
def test_no_page_begins_behind_another_tenants_object(route: Route, theirs: Owner, ours: Owner) -> None:
    assert route.name in AFTER, f"say in support/owned.py what `after` of {route.name} names"
    word = AFTER[route.name]
    foreign = theirs.has(word, ids_of(theirs, route))
    own = ids_of(ours, route)
    first = ours.ask(route, own, query_string={"after": ours.has(word, own)})

    answer = ours.ask(route, own, query_string={"after": foreign})
    absent = ours.ask(route, own, query_string={"after": never(foreign)})

    assert first.status_code == 200, first.text
    assert answer.status_code == 404, answer.text
    assert told(answer, foreign) == told(absent, never(foreign))


def named_fields(route: Route) -> set[str]:
    """The fields of a route's bodies that may name an object."""
    shapes = [shape.model_json_schema() for shape in (route.body, route.form) if shape is not None]
    paths = {path.removeprefix("json.") for s in shapes for path in owned.fields(s, s.get("$defs", {}))}
    return {p for p in paths if _LOOKS_LIKE_AN_ID.search(p) and not p.endswith(_OURS_IS_NO_ID)}


def test_every_field_that_may_name_an_object_is_known() -> None:
    there = {(route.name, path) for route in ROUTES for path in named_fields(route)}

    assert there - set(NAMED) - set(NOT_NAMED) == set(), "say in support/owned.py what these fields name"
    assert set(NAMED) | set(NOT_NAMED) <= there, "these fields are gone"


@pytest.mark.parametrize(("route_name", "path"), NAMED)
def test_a_body_cannot_name_another_tenants_object(
    route_name: str, path: str, theirs: Owner, ours: Owner
) -> None:
    route = next(route for route in ROUTES if route.name == route_name)
    foreign, own = theirs.has(NAMED[route_name, path], ids_of(theirs, route)), ids_of(ours, route)
    body = ours.good(route, own)["json"]
    before = owned.everything(ours.door)

    answer = ours.ask(route, own, json=owned.with_field(body, path, foreign))
    absent = ours.ask(route, own, json=owned.with_field(body, path, never(foreign)))

    assert answer.status_code in (400, 404), answer.text
    assert (answer.json or {})["error"]["param"] == path
    assert told(answer, foreign) == told(absent, never(foreign))
    assert owned.everything(ours.door) == before


@pytest.mark.parametrize("several", [False, True])
def test_a_cell_of_a_prediction_cannot_name_another_tenants_file(
    theirs: Owner, ours: Owner, several: bool
) -> None:
    foreign, model = theirs.has("file_id"), ours.has("model")

    def kept(file_id: str) -> str:
        cell: Any = {"file_id": file_id}
        row = {"image": [{"file_id": ours.has("file_id")}, cell] if several else cell}
        body = {"model": model, "inputs": [row], "background": True}
        answer = predict(ours.door, body, key=ours.key)
        return str(spec_of(ours.door, (answer.json or {})["id"])["inputs"]).replace(file_id, "<id>")

    assert "file_not_found" in kept(foreign)
    assert kept(foreign) == kept(never(foreign))


def address_of_nothing(route: Route) -> str:
    return owned.address(route, dict.fromkeys(route.parameters, "x"))


@pytest.mark.parametrize("route", WITH_KEY, ids=name_of)
def test_a_key_without_the_scope_opens_nothing(route: Route, ours: Owner) -> None:
    assert route.needs is not None
    wider = {"predictions:read": "jobs:read", "predictions:write": "jobs:write"}.get(route.needs)
    key = key_with(ours.door, f"without {route.needs}", ALL_SCOPES - {route.needs, wider})

    answer = ours.door.send(route.method, address_of_nothing(route), key=key)

    assert answer.status_code == 403, answer.text
    assert (answer.json or {})["error"]["code"] == "insufficient_scope"


_KEYS: dict[str, str] = {}


def key_with(door: Door, name: str, scopes: Any = ALL_SCOPES, **more: Any) -> str:
    """A key of the second tenant's, made once."""
    if name not in _KEYS:
        _KEYS[name] = door.new_key("b", frozenset(scopes), **more)
    return _KEYS[name]


def revoked(door: Door) -> str:
    key = key_with(door, "revoked")
    with door.database.transaction() as session:
        tenants.revoke(session, next(k.id for k in tenants.keys(session, "b") if k.last4 == key[-4:]))
    return key


@pytest.mark.parametrize("route", WITH_KEY, ids=name_of)
def test_no_route_opens_without_a_live_key(route: Route, ours: Owner) -> None:
    door, path = ours.door, address_of_nothing(route)
    expired = key_with(door, "expired", expires_in_s=-1.0)

    refused = [door.send(route.method, path, key=key) for key in ("plait-unknown", expired, revoked(door))]
    keyless = door.client.open(path, method=route.method)

    assert [answer.status_code for answer in (*refused, keyless)] == [401] * 4


def test_the_walk_sees_a_route_that_asks_for_no_tenant(
    theirs: Owner, ours: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def anybodys(session: Session, _tenant: str, file_id: str, **_: Any) -> File:
        return session.get_one(File, file_id)

    monkeypatch.setattr(files, "get", anybodys)

    for route in (route for route in BY_ID if route.name in ("files.retrieve", "files.delete")):
        with pytest.raises(AssertionError):
            test_another_tenants_object_is_as_absent_as_one_that_never_was(route, 0, theirs, ours)

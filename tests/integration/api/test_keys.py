"""Keys over HTTP and at the door: scopes, expiry, rotation, last use, and how soon a revoked one is refused."""

from typing import Any

import pytest
from sqlalchemy import select, update

from api import keyring
from db import tenants
from db.session import now
from db.tables import ApiKey
from domain.access import ALL_SCOPES, Scope
from domain.errors import Conflict
from support.door import Door
from support.together import together

KEYS = "/v1/api_keys"


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a second had passed since each key was looked up."""
    monkeypatch.setattr(keyring, "KNOWN_S", 0.0)


def made(door: Door, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    answer = door.send("POST", KEYS, json=body or {}, **more)
    assert answer.status_code == 200, answer.text
    return dict(answer.json or {})


def status(door: Door, key: str, path: str = "/v1/files") -> int:
    return door.get(path, key=key).status_code


def row_of(door: Door, key_id: str) -> ApiKey:
    with door.database.reading() as session:
        return tenants.get_key(session, key_id)


def test_a_key_made_over_http_works_at_once_and_is_never_shown_again(door: Door) -> None:
    key = made(door, {"name": "ci", "scopes": ["files:read"], "expires_in_s": 3600})

    assert status(door, key["api_key"]) == 200
    assert status(door, key["api_key"], "/v1/jobs") == 403
    listed = door.get(KEYS)
    assert key["api_key"] not in listed.text
    newest = (listed.json or {})["data"][0]
    assert newest["id"] == key["id"]
    assert (newest["name"], newest["state"], newest["scopes"]) == ("ci", "live", ["files:read"])
    assert newest["last4"] == key["api_key"][-4:]
    assert 3590 <= newest["expires_at"] - newest["created_at"] <= 3601


def test_without_scopes_a_key_gets_all_of_its_makers_but_the_power_over_keys(door: Door) -> None:
    assert set(made(door)["scopes"]) == ALL_SCOPES - {Scope.KEYS_WRITE}
    assert set(made(door, {"scopes": ["keys:write"]})["scopes"]) == {"keys:write"}


def test_no_key_gives_more_than_it_has(door: Door) -> None:
    def answer(held: str, asked: list[str]) -> int:
        maker = door.new_key("a", frozenset({Scope.KEYS_WRITE, Scope(held)}))
        return door.send("POST", KEYS, key=maker, json={"scopes": asked}).status_code

    assert answer("files:read", ["files:read"]) == 200
    assert answer("jobs:write", ["predictions:write", "keys:write"]) == 200
    assert answer("files:read", ["files:write"]) == 403
    assert answer("predictions:write", ["jobs:write"]) == 403
    assert answer("jobs:write", ["jobs:write", "audit:read"]) == 403


def test_no_key_rotates_one_that_may_do_more(door: Door) -> None:
    strong, weak = made(door), door.new_key("a", frozenset({Scope.KEYS_WRITE, Scope.FILES_READ}))

    answer = door.send("POST", f"{KEYS}/{strong['id']}/rotate", key=weak)

    assert answer.status_code == 403
    assert row_of(door, strong["id"]).successor is None


def test_a_key_that_cannot_be_is_refused_with_the_field_to_blame(door: Door) -> None:
    for body in (
        {"scopes": ["files:execute"]},
        {"scopes": []},
        {"name": ""},
        {"name": "x" * 201},
        {"expires_in_s": 0},
        {"expires_in_s": 1e12},
        {"tenant": "b"},
    ):
        answer = door.send("POST", KEYS, json=body)

        assert answer.status_code == 400, body
        assert (answer.json or {})["error"]["param"].split(".")[0] == next(iter(body))


@pytest.mark.usefixtures("forgetful")
def test_after_a_rotation_both_keys_work_until_the_grace_is_over(door: Door) -> None:
    old = made(door, {"name": "ci", "scopes": ["files:read"], "expires_in_s": 86_400})

    new = dict(door.send("POST", f"{KEYS}/{old['id']}/rotate", json={"grace_s": 60}).json or {})

    assert (new["name"], new["scopes"], new["state"]) == ("ci", ["files:read"], "live")
    assert [status(door, key["api_key"]) for key in (old, new)] == [200, 200]
    # As long as the old one had been given, from now on.
    assert 86_390 <= new["expires_at"] - new["created_at"] <= 86_401
    with door.database.transaction() as session:
        session.execute(update(ApiKey).where(ApiKey.id == old["id"]).values(expires_at=now() - 1))
    assert [status(door, key["api_key"]) for key in (old, new)] == [401, 200]


def test_a_rotation_without_a_grace_ends_the_old_key_at_once(door: Door) -> None:
    old = made(door)
    assert status(door, old["api_key"]) == 200

    door.send("POST", f"{KEYS}/{old['id']}/rotate", json={"grace_s": 0})

    assert status(door, old["api_key"]) == 401


def test_a_rotation_never_prolongs_the_old_key(door: Door) -> None:
    old = made(door, {"expires_in_s": 60})

    door.send("POST", f"{KEYS}/{old['id']}/rotate", json={"grace_s": 3600})

    assert row_of(door, old["id"]).expires_at == pytest.approx(row_of(door, old["id"]).created_at + 60, abs=1)


def test_a_key_is_rotated_once(door: Door) -> None:
    old = made(door)
    first, again = (door.send("POST", f"{KEYS}/{old['id']}/rotate") for _ in range(2))

    assert (first.status_code, again.status_code) == (200, 409)
    assert (again.json or {})["error"]["code"] == "key_not_live"
    assert {k["state"] for k in (door.get(KEYS).json or {})["data"]} == {"live", "rotated"}


def test_of_two_that_rotate_a_key_at_once_one_wins(door: Door) -> None:
    key_id = made(door)["id"]

    def rotate() -> str:
        with door.database.transaction() as session:
            return tenants.rotate(session, tenants.get_key(session, key_id), 60)[1]

    results = together(rotate, rotate)

    assert sorted(isinstance(result, Conflict) for result in results) == [False, True]


def test_a_key_revoked_here_is_refused_at_once_and_stays_in_the_list(door: Door) -> None:
    key = made(door)
    assert status(door, key["api_key"]) == 200

    answer = door.send("DELETE", f"{KEYS}/{key['id']}")

    assert answer.json == {"id": key["id"], "object": "api_key", "deleted": True}
    assert status(door, key["api_key"]) == 401
    assert (door.get(KEYS).json or {})["data"][0]["state"] == "revoked"
    assert door.send("DELETE", f"{KEYS}/{key['id']}").status_code == 200


def test_a_key_revoked_elsewhere_is_refused_once_its_second_is_over(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = made(door)
    assert status(door, key["api_key"]) == 200
    with door.database.transaction() as session:
        tenants.revoke(session, key["id"])
    later = keyring.time.monotonic() + keyring.KNOWN_S

    monkeypatch.setattr(keyring.time, "monotonic", lambda: later)

    assert status(door, key["api_key"]) == 401


def test_a_busy_key_is_looked_up_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    look_up = tenants.look_up
    monkeypatch.setattr(
        tenants, "look_up", lambda session, digest: looks.append(digest) or look_up(session, digest)
    )
    monkeypatch.setattr(keyring, "KNOWN_S", 60.0)

    assert {status(door, door.key) for _ in range(5)} == {200}

    assert len(looks) == 1


def test_a_known_key_ends_on_the_instant_at_which_it_expires(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "KNOWN_S", 3600.0)
    key = door.new_key("a", expires_in_s=600)
    assert status(door, key) == 200
    with door.database.transaction() as session:
        session.execute(update(ApiKey).where(ApiKey.expires_at.is_not(None)).values(expires_at=now() - 1))
    began = keyring.time.monotonic()
    assert status(door, key) == 200

    monkeypatch.setattr(keyring.time, "monotonic", lambda: began + 600)

    assert status(door, key) == 401


@pytest.mark.usefixtures("forgetful")
def test_the_last_use_is_noted_at_most_once_a_minute(door: Door) -> None:
    key = made(door)
    assert row_of(door, key["id"]).last_used_at is None

    status(door, key["api_key"])
    first = row_of(door, key["id"]).last_used_at
    status(door, key["api_key"])
    second = row_of(door, key["id"]).last_used_at
    with door.database.transaction() as session:
        session.execute(update(ApiKey).values(last_used_at=now() - 61))
    status(door, key["api_key"])
    third = row_of(door, key["id"]).last_used_at

    assert first is not None
    assert second == first
    assert third is not None
    assert third >= first


def test_a_refused_use_is_noted_as_well_and_one_of_a_dead_key_is_not(door: Door) -> None:
    weak = made(door, {"scopes": ["files:read"]})
    dead = made(door)
    door.send("DELETE", f"{KEYS}/{dead['id']}")

    assert status(door, weak["api_key"], "/v1/jobs") == 403
    assert status(door, dead["api_key"]) == 401

    assert row_of(door, weak["id"]).last_used_at is not None
    assert row_of(door, dead["id"]).last_used_at is None


def test_refusals_of_known_keys_are_logged_without_the_key(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    weak, dead = made(door, {"scopes": ["files:read"]}), made(door)
    door.send("DELETE", f"{KEYS}/{dead['id']}")

    status(door, weak["api_key"], "/v1/jobs")
    status(door, dead["api_key"])

    told = "\n".join(record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert f"key {weak['id']} of tenant a was refused: it lacks jobs:read" in told
    assert f"key {dead['id']} of tenant a was refused: it was revoked" in told
    assert weak["api_key"] not in told
    assert dead["api_key"] not in told


def test_only_the_hash_of_a_key_is_stored(door: Door) -> None:
    key = made(door)

    with door.database.reading() as session:
        stored = repr(session.execute(select(*ApiKey.__table__.columns)).all())

    assert key["api_key"] not in stored


def test_a_key_that_could_do_nothing_is_not_made(door: Door) -> None:
    answer = door.send("POST", KEYS, key=door.new_key("a", frozenset({Scope.KEYS_WRITE})), json={})

    assert answer.status_code == 400
    assert (answer.json or {})["error"]["param"] == "scopes"

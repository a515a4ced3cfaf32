"""`plait-server keys, tenants and audit`, run in the test's process on a real database."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import manage
from db import audit, tenants
from db.session import Database
from db.tables import Tenant
from domain.errors import Unauthorized
from support.stack import ROOT


class Server:
    """`plait-server` on one data folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.run("migrate")

    def run(self, *words: str, code: int = 0) -> Result:
        env = {"PLAIT_DATA": str(self.data), "PLAIT_DATABASE_URL": ""}
        result = CliRunner().invoke(manage.main, words, env=env)
        assert result.exit_code == code, result.output
        return result

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").output)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "data")


def principal(server: Server, key: str) -> Any:
    database = Database(f"sqlite:///{server.data.absolute() / 'plait.db'}")
    try:
        with database.reading() as session:
            return tenants.authenticate(session, key)
    finally:
        database.close()


def test_a_key_is_made_with_the_scopes_and_the_days_that_are_asked_for(server: Server) -> None:
    made = server.json(
        "keys", "create", "--tenant", "red", "--scopes", "jobs:read, files:read", "--days", "2"
    )

    (listed,) = server.json("keys", "list", "--tenant", "red")
    assert principal(server, made["api_key"]).scopes == {"jobs:read", "files:read"}
    assert (listed["id"], listed["state"], listed["last4"]) == (made["id"], "live", made["api_key"][-4:])
    assert listed["expires_at"] is not None
    assert listed["last_used_at"] is None


def test_a_usual_key_has_no_power_over_keys_and_one_with_all_scopes_has(server: Server) -> None:
    usual, all_ = server.json("keys", "create"), server.json("keys", "create", "--scopes", "all")

    assert "keys:write" not in principal(server, usual["api_key"]).scopes
    assert "keys:write" in principal(server, all_["api_key"]).scopes


def test_a_key_is_rotated_and_both_live_until_the_grace_is_over(server: Server) -> None:
    old = server.json("keys", "create", "--name", "ci")

    new = server.json("keys", "rotate", old["id"], "--grace", "24h")

    states = {key["id"]: key["state"] for key in server.json("keys", "list")}
    assert states == {old["id"]: "rotated", new["id"]: "live"}
    assert principal(server, old["api_key"]).tenant == principal(server, new["api_key"]).tenant
    assert "rotated before" in server.run("keys", "rotate", old["id"], code=1).output
    server.run("keys", "revoke", old["id"])
    with pytest.raises(Unauthorized, match="revoked"):
        principal(server, old["api_key"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("keys", "create", "--scopes", "files:run"), "files:read"),
        (("keys", "create", "--scopes", ""), "at least 1"),
        (("keys", "create", "--name", "x" * 201), "at most 200"),
        (("keys", "create", "--days", "0"), "greater than 0"),
        (("keys", "create", "--tenant", "a:b"), "small letters"),
        (("keys", "rotate", "key_none"), "keys list"),
        (("keys", "rotate", "key_none", "--grace", "tomorrow"), "24h"),
        (("tenants", "create", "Red"), "small letters"),
        (("tenants", "set", "none", "--weight", "2"), "tenants list"),
        (("tenants", "set", "default", "--weight", "0"), "1<=x"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(words: tuple[str, ...], told: str, server: Server) -> None:
    result = CliRunner().invoke(manage.main, words, env={"PLAIT_DATA": str(server.data)})

    assert result.exit_code in (1, 2)
    assert told in result.output
    assert "Traceback" not in result.output
    assert server.json("keys", "list") == []


def test_a_name_of_a_tenants_choice_moves_no_operators_cursor(server: Server) -> None:
    server.run("keys", "create", "--name", "ci\x1b[2J\u202e")

    shown = server.run("keys", "list").output

    assert "ci?[2J?" in shown
    assert not set("\x1b\u202e") & set(shown)


def test_a_tenants_limits_are_set_and_shown_beside_what_is_used(server: Server) -> None:
    server.run("tenants", "create", "red", "--max-queued", "5")
    server.run("tenants", "set", "red", "--requests-per-minute", "60", "--weight", "3")

    (shown,) = server.json("tenants", "show", "red")

    assert (shown["max_queued"], shown["requests_per_minute"], shown["weight"]) == (5, 60, 3)
    assert shown["used"] == {"running": 0, "queued": 0, "bytes": 0}
    assert [row["tenant"] for row in server.json("tenants", "list")] == ["default", "red"]
    assert "already" in server.run("tenants", "create", "red", code=1).output
    assert "used bytes" in server.run("tenants", "show", "red").output


def test_the_audit_is_listed(server: Server) -> None:
    database = Database(f"sqlite:///{server.data.absolute() / 'plait.db'}")
    with database.transaction() as session:
        assert session.get(Tenant, "default") is not None
        about = {"key": "key_1", "action": "files.create", "object_id": "file-1"}
        audit.write(session, tenant="default", request_id="req_1", address="10.0.0.9", **about)
    database.close()

    (row,) = server.json("audit", "list", "--since", "1h", "--tenant", "default")

    assert (row["action"], row["object_id"], row["key"]) == ("files.create", "file-1", "key_1")
    assert "file-1" in server.run("audit", "list").output
    assert server.json("audit", "list", "--tenant", "other") == []


def test_help_loads_neither_the_database_nor_the_engine() -> None:
    program = (
        "import sys, manage\n"
        "try: manage.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'sqlalchemy', 'torch', 'numpy', 'flask', 'celery'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"
    assert "Make, list, rotate and revoke API keys." in done.stdout

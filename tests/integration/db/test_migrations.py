"""Migrations and tables say the same, on both databases."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, MetaData, null, text

from db import checkpoints, events, job_pages, jobs, tenants, version
from db.job_pages import Wanted
from db.migrate import config, upgrade
from db.session import Database
from db.tables import Table
from domain.access import Scope
from domain.ids import key_hash, new_id, new_key
from domain.job import Kind
from support.databases import database_url


def _but_the_claims_index(_: object, name: str | None, *__: object) -> bool:
    return name != "ix_jobs_ready"


def test_the_migrations_build_exactly_the_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        # SQLite cannot reflect the index on `priority DESC`; the next test asks for it by name.
        options = {"compare_type": True, "include_object": _but_the_claims_index}
        context = MigrationContext.configure(connection, opts=options)

        assert compare_metadata(context, Table.metadata) == []


def test_the_index_behind_the_claim_is_there(database: Database) -> None:
    with database.engine.connect() as connection:
        place = "sqlite_master WHERE name" if database.sqlite else "pg_indexes WHERE indexname"

        assert connection.exec_driver_sql(f"SELECT 1 FROM {place} = 'ix_jobs_ready'").scalar() == 1


def test_the_schema_that_the_web_process_asks_for_is_the_newest() -> None:
    assert ScriptDirectory.from_config(config()).get_current_head() == version.SCHEMA


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_processes_that_migrate_at_once_are_harmless(kind: str, tmp_path: Path) -> None:
    with database_url(kind, tmp_path) as url:
        program = "import sys; from db.session import Database; from db.migrate import upgrade; upgrade(Database(sys.argv[1]))"
        processes = [subprocess.Popen([sys.executable, "-c", program, url]) for _ in range(3)]

        codes = [process.wait(60) for process in processes]

        database = Database(url)
        assert codes == [0, 0, 0]
        assert version.is_current(database)
        database.close()


def test_an_empty_database_is_not_current(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")

    assert not version.is_current(database)
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_of_the_first_version_keeps_every_row(kind: str, tmp_path: Path) -> None:
    with database_url(kind, tmp_path) as url:
        database = Database(url)
        with database.engine.begin() as connection:
            made = config()
            made.attributes["connection"] = connection
            command.upgrade(made, "0001")
        old = _OldRows(database)
        old.tenant("default")
        old.key("default", ["jobs:write"])
        old.job("ftjob-1", "default", idempotency_key="k", metadata={"team": "red"}, checkpoint_ref="r/2")
        event = {"name": "job.created", "level": "info", "type": "message", "message": "m", "data": {}}
        old.add("events", job="ftjob-1", seq=1, fence=0, **event)
        old.add("metrics", job="ftjob-1", name="loss", step=1, value=0.5)
        for step in (1, 2):
            old.add(
                "checkpoints", id=f"c{step}", job="ftjob-1", fence=1, step=step, ref=f"r/{step}", metrics={}
            )
        old.add("models", id="ft:m", tenant="default", job="ftjob-1", family="late-fusion", ref="r")
        kept = ("tenants", "quota", "api_keys", "jobs", "events", "metrics", "checkpoints", "models")
        before = _counts(database, kept)

        upgrade(database)

        assert _counts(database, kept) == before == dict.fromkeys(kept, 1) | {"checkpoints": 2}
        with database.transaction() as session:
            assert [e.name for e in events.since(session, "ftjob-1", 0)] == ["job.created"]
            found, _ = job_pages.page(session, "default", Wanted(labels={"team": "red"}))
            assert [(job.id, job.idempotency_key) for job in found] == [("ftjob-1", "k")]
            assert checkpoints.kept(session, "ftjob-1") == ["r/2"]
            checked = jobs.Submission(tenant="default", spec={}, kind=Kind.CHECK)
            assert jobs.submit(session, checked).id.startswith("check_")
            if database.sqlite:
                assert session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        database.close()


class _OldRows:
    """Writes rows as an older version did: into the columns that its schema has."""

    def __init__(self, database: Database) -> None:
        self._database, self._tables = database, MetaData()
        self._tables.reflect(database.engine)

    def add(self, table: str, **values: Any) -> None:
        with self._database.transaction() as session:
            session.execute(self._tables.tables[table].insert().values(values))

    def tenant(self, name: str) -> None:
        self.add("tenants", id=name, name=name)
        limits = {"weight": 1, "max_running": 1000, "max_queued": 10_000, "max_bytes": 10**12}
        self.add("quota", tenant=name, **limits)

    def key(self, tenant: str, scopes: list[str]) -> str:
        secret = new_key()
        about = {"tenant": tenant, "name": "old", "last4": secret[-4:], "scopes": scopes}
        self.add("api_keys", id=new_id("key_"), hash=key_hash(secret), **about)
        return secret

    def job(self, job_id: str, tenant: str, **more: Any) -> None:
        words = {"kind": "fine_tune", "stage": "run", "lane": "cpu", "state": "queued", "want": "run"}
        numbers = dict.fromkeys(("priority", "fence", "attempt", "deaths"), 0)
        most = {"max_attempts": 3, "max_deaths": 3, "event_seq": 1}
        self.add("jobs", id=job_id, tenant=tenant, spec={}, **words, **numbers, **most, **more)


def _counts(database: Database, tables: Iterable[str]) -> dict[str, int]:
    with database.reading() as session:
        return {
            table: session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() for table in tables
        }


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_metadata_of_jobs_from_before_can_be_searched_and_their_keys_may_do_what_is_new(
    kind: str, tmp_path: Path
) -> None:
    with database_url(kind, tmp_path) as url:
        database = Database(url)
        with database.engine.begin() as connection:
            made = config()
            made.attributes["connection"] = connection
            command.upgrade(made, "0002")
        old = _OldRows(database)
        old.tenant("default")
        writer = old.key("default", ["jobs:write", "models:read"])
        reader = old.key("default", ["models:read"])
        # A job without metadata held JSON's null or SQL's.
        for n, labels in enumerate(({'a"b': "x", "é": "y"}, JSON.NULL, null())):
            old.job(f"ftjob-{n}", "default", metadata=labels)

        upgrade(database)

        with database.transaction() as session:
            found, _ = job_pages.page(session, "default", Wanted(labels={'a"b': "x", "é": "y"}))
            assert [job.id for job in found] == ["ftjob-0"]
            assert Scope.MODELS_WRITE in tenants.authenticate(session, writer).scopes
            assert Scope.MODELS_WRITE not in tenants.authenticate(session, reader).scopes
            webhooks = {Scope.WEBHOOKS_READ, Scope.WEBHOOKS_WRITE}
            assert webhooks <= tenants.authenticate(session, writer).scopes
            assert not webhooks & tenants.authenticate(session, reader).scopes
        database.close()

"""Migrations and tables say the same, on both databases."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from db import events, jobs, tenants, version
from db.migrate import config, upgrade
from db.session import Database
from db.tables import Table
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


def test_a_database_of_the_first_version_keeps_every_row(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'old.db'}")
    with database.engine.begin() as connection:
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, "0001")
    with database.transaction() as session:
        tenants.ensure(session)
        job = jobs.submit(session, jobs.Submission(tenant="default", spec={"model": "m"}))

    upgrade(database)

    with database.transaction() as session:
        assert [e.name for e in events.since(session, job.id, 0)] == ["job.created"]
        checked = jobs.Submission(tenant="default", spec={}, kind=Kind.CHECK)
        assert jobs.submit(session, checked).id.startswith("check_")
        assert session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()

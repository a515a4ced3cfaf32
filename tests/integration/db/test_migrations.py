"""Migrations and tables say the same, on both databases."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from db import events, job_pages, jobs, tenants, version
from db.job_pages import Wanted
from db.migrate import config, upgrade
from db.session import Database
from db.tables import Checkpoint, Metric, Model, Table
from domain.access import Scope
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
        with database.transaction() as session:
            tenants.ensure(session)
            tenants.create_key(session, "default", name="old")
            job = jobs.submit(session, jobs.Submission(tenant="default", spec={"model": "m"}, key="k"))
            job.labels = {"team": "red"}
            session.add(Metric(job=job.id, name="loss", step=1, value=0.5))
            session.add(Checkpoint(id="c", job=job.id, fence=1, step=1, ref="r", metrics={}))
            session.add(Model(id="ft:m", tenant="default", job=job.id, family="late-fusion", ref="r"))
        kept = ("tenants", "quota", "api_keys", "jobs", "events", "metrics", "checkpoints", "models")
        before = _counts(database, kept)

        upgrade(database)

        assert _counts(database, kept) == before == dict.fromkeys(kept, 1)
        with database.transaction() as session:
            assert [e.name for e in events.since(session, job.id, 0)] == ["job.created"]
            found, _ = job_pages.page(session, "default", Wanted(labels={"team": "red"}))
            assert [(job.id, job.idempotency_key) for job in found] == [(job.id, "k")]
            checked = jobs.Submission(tenant="default", spec={}, kind=Kind.CHECK)
            assert jobs.submit(session, checked).id.startswith("check_")
            if database.sqlite:
                assert session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        database.close()


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
        with database.transaction() as session:
            tenants.ensure(session)
            scopes = [Scope.JOBS_WRITE, Scope.MODELS_READ]
            _, writer = tenants.create_key(session, "default", name="w", scopes=scopes)
            _, reader = tenants.create_key(session, "default", name="r", scopes=[Scope.MODELS_READ])
            document = ":labels" if kind == "sqlite" else "CAST(:labels AS JSONB)"
            for n, labels in enumerate(('{"a\\"b": "x", "é": "y"}', "null", None)):
                columns = "id, tenant, kind, stage, lane, priority, state, want, fence, attempt, deaths"
                values = f"'ftjob-{n}', 'default', 'fine_tune', 'run', 'cpu', 0, 'queued', 'run', 0, 0, 0"
                session.execute(
                    text(
                        f"INSERT INTO jobs ({columns}, max_attempts, max_deaths, event_seq, spec, metadata) "
                        f"VALUES ({values}, 3, 3, 1, '{{}}', {document})"
                    ),
                    {"labels": labels},
                )

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

"""Commits that are carried out and never answered."""

from typing import Any

import pytest

from db.session import Database


def lose_the_answer_to_the_next_commit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database has committed, and the connection breaks before it says so."""
    dialect = database.engine.dialect
    commit = dialect.do_commit

    def unlucky(connection: Any) -> None:
        monkeypatch.setattr(dialect, "do_commit", commit)
        commit(connection)
        raise dialect.dbapi.OperationalError("server closed the connection unexpectedly")  # type: ignore[union-attr]

    monkeypatch.setattr(dialect, "do_commit", unlucky)

"""Fixtures for every test: both databases, and a broker that is really there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.session import Database
from support.databases import database_url, migrated


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A fresh database with the newest schema; the test runs once on each kind."""
    with database_url(request.param, tmp_path) as url, migrated(url) as made:
        yield made

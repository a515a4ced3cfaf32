"""Fixtures for every test: both databases, and a broker that is really there."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# The kernels' tests run in Triton's interpreter, save for `make gpu`. Triton reads this when it is first imported.
os.environ.setdefault("TRITON_INTERPRET", "1")

from db.session import Database
from support.databases import fresh
from support.object_store import ObjectStore
from support.object_store import object_store as running_store


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """One S3-compatible store for the whole run; each test takes a prefix of its own."""
    with running_store() as store:
        yield store


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A fresh database with the newest schema; the test runs once on each kind."""
    with fresh(request.param, tmp_path) as made:
        yield made

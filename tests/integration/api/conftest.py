"""The door over both databases."""

from pathlib import Path

import pytest

from db.session import Database
from settings import Settings
from support.door import Door


@pytest.fixture
def door(database: Database, tmp_path: Path) -> Door:
    return Door(database, Settings(data=tmp_path / "data", max_upload_bytes=100_000))

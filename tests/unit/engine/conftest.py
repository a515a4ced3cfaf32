"""Tiny encoders, built once for all tests of the engine."""

from pathlib import Path

import pytest

from support.encoders import tiny_encoders


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_encoders(tmp_path_factory.mktemp("encoders"))

"""The benchmark of the service starts, measures and writes its tables. What it measures is no matter here."""

import csv
from pathlib import Path
from typing import Any

import pytest

from benchmarks.service import load
from benchmarks.service.__main__ import measured, write


@pytest.fixture
def told(tmp_path: Path) -> Any:
    def run(part: str) -> list[dict[str, str]]:
        write(tmp_path / f"{part}.csv", measured(part, "sqlite", quick=True))
        with (tmp_path / f"{part}.csv").open() as file:
            return list(csv.DictReader(file))

    return run


@pytest.mark.slow
def test_submits_of_plait_and_of_its_peer_are_counted(told: Any) -> None:
    rows = told("submits")

    plait, peer = ("plait", "plait, every bell heard"), ("peer", "peer, every bell heard")
    assert {row["contender"] for row in rows} == {*plait, *peer, "peer with a key look-up"}
    assert {row["errors"] for row in rows} == {"0"}
    assert all(row["python"] and row["cores"] for row in rows)


def test_claims_are_timed_in_a_short_and_in_a_long_queue(told: Any) -> None:
    assert [row["queued"] for row in told("claims")] == ["50", "200"]


@pytest.mark.slow
def test_every_stream_of_the_crowd_hears_every_event(told: Any) -> None:
    alone, crowded = told("crowd")

    assert (alone["streams"], crowded["streams"]) == ("0", "4")
    assert (alone["errors"], crowded["errors"]) == ("0", "0")
    assert int(crowded["events_heard"]) == int(crowded["events_expected"]) > 0


def test_a_quantile_of_nothing_is_nothing() -> None:
    assert load.Told().quantile(0.5) == 0.0
    assert load.Told(latencies=[1.0, 2.0, 3.0]).quantile(0.5) == 2.0

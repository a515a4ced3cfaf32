"""Bells rung behind the back of whoever submits: none is lost, and a lane that has enough is left alone for a moment."""

import threading
from typing import Any

from api.ringing import Ringing
from domain.job import Lane
from support.stack import until


class Recorder:
    """Stands for `bus.bells.Bells`: remembers what was rung, and says of some lanes that they have enough."""

    def __init__(self, *full: Lane) -> None:
        self.full = full
        self.rung: list[tuple[Lane, int]] = []
        #: Held to keep the first who rings until more have come.
        self.door = threading.Lock()

    def ring(self, lane: Lane, times: int) -> bool:
        with self.door:
            self.rung.append((lane, times))
        return lane in self.full

    def of(self, lane: Lane) -> int:
        return sum(times for rung, times in self.rung if rung is lane)


def ringing(bells: Any) -> Ringing:
    return Ringing(bells)


def test_every_bell_is_rung_also_while_its_lane_rests() -> None:
    bells = Recorder(Lane.CPU)
    rings = ringing(bells)

    for _ in range(50):
        rings.ring(Lane.CPU)

    until(lambda: bells.of(Lane.CPU), lambda rung: rung == 50, limit_s=10)


def test_a_lane_that_has_enough_bells_is_not_asked_at_every_ring(monkeypatch: Any) -> None:
    monkeypatch.setattr("api.ringing.REST_S", 0.3)
    bells = Recorder(Lane.CPU)
    rings = ringing(bells)
    rings.ring(Lane.CPU)
    until(lambda: bells.of(Lane.CPU), lambda rung: rung == 1, limit_s=10)

    for _ in range(20):
        rings.ring(Lane.CPU)

    until(lambda: bells.of(Lane.CPU), lambda rung: rung == 21, limit_s=10)
    assert bells.rung == [(Lane.CPU, 1), (Lane.CPU, 20)]


def test_a_lane_does_not_wait_for_another_that_rests(monkeypatch: Any) -> None:
    monkeypatch.setattr("api.ringing.REST_S", 60.0)
    bells = Recorder(Lane.CPU)
    rings = ringing(bells)
    rings.ring(Lane.CPU)
    until(lambda: bells.of(Lane.CPU), lambda rung: rung == 1, limit_s=10)

    rings.ring(Lane.INFER)

    until(lambda: bells.of(Lane.INFER), lambda rung: rung == 1, limit_s=10)


def test_what_comes_while_a_bell_is_rung_is_rung_together() -> None:
    bells = Recorder()
    rings = ringing(bells)

    with bells.door:
        for _ in range(10):
            rings.ring(Lane.TRAIN)

    until(lambda: bells.of(Lane.TRAIN), lambda rung: rung == 10, limit_s=10)
    assert len(bells.rung) <= 2

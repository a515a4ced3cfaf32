"""(a) Durable idempotent submits: a key in each request, a commit before each answer, a bell after it.

Plait stops ringing a lane in which eight bells are unheard: workers that are busy find the rest of the jobs without
them. Under a flood that is so, and it is measured so. Once more every bell, and every message of the peer's, is taken
away at once, as if a worker were always idle: then each submit has to ring.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from sqlalchemy import text

from benchmarks.service import sides
from benchmarks.service.compare import Contender, in_turn
from bus.celery import PREFIX

CLIENTS = (1, 8, 32)


def measure(on: sides.Ground, *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    ours, bare, keyed = sides.plait(on), sides.naive(on, keys=False), sides.naive(on, keys=True)
    bells_pile_up = [
        Contender("plait", ours.port, ours.submit),
        Contender("peer", bare.port, bare.submit),
        Contender("peer with a key look-up", keyed.port, keyed.submit),
    ]
    all_are_heard = [
        Contender(
            f"{name}, every bell heard", side.port, side.submit, beside=lambda: _idle_worker(on.redis_url)
        )
        for name, side in (("plait", ours), ("peer", bare))
    ]
    return [
        row
        for clients in CLIENTS
        for contenders in (bells_pile_up, all_are_heard)
        for row in in_turn(
            contenders,
            clients=clients,
            rounds=rounds,
            seconds=seconds,
            against=contenders[1].name,
            between=lambda: _settle(on),
        )
    ]


@contextmanager
def _idle_worker(url: str) -> Iterator[None]:
    """Hears every bell at once, Plait's and the peer's."""
    over = threading.Event()
    hearing = threading.Thread(target=_hear, args=(url, over))
    hearing.start()
    try:
        yield
    finally:
        over.set()
        hearing.join()


def _hear(url: str, over: threading.Event) -> None:
    with redis.Redis.from_url(url) as wire:
        while not over.is_set():
            wire.blpop([f"{PREFIX}cpu", "peer"], timeout=1)


def _settle(on: sides.Ground) -> None:
    """What was submitted waits no longer: the next round finds the queue as this one did."""
    with redis.Redis.from_url(on.redis_url) as wire:
        wire.delete("peer")
    with on.database.transaction() as session:
        session.execute(
            text("UPDATE jobs SET state = 'cancelled', finished_at = created_at WHERE state = 'queued'")
        )
        session.execute(text("DELETE FROM peer_jobs"))

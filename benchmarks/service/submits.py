"""(a) Durable idempotent submits: a key in each request, a commit before each answer, a bell after it."""

import threading
from typing import Any

import redis
from sqlalchemy import text

from benchmarks.service import sides
from benchmarks.service.compare import Contender, in_turn
from bus.celery import PREFIX

CLIENTS = (1, 8, 32)


def measure(on: sides.Ground, *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    ours, bare, keyed = sides.plait(on), sides.naive(on, keys=False), sides.naive(on, keys=True)
    contenders = [
        Contender("plait", ours.port, ours.submit),
        Contender("peer", bare.port, bare.submit),
        Contender("peer with a key look-up", keyed.port, keyed.submit),
    ]
    over = threading.Event()
    hearing = threading.Thread(target=_hear, args=(on.redis_url, over))
    hearing.start()
    try:
        return [
            row
            for clients in CLIENTS
            for row in in_turn(
                contenders,
                clients=clients,
                rounds=rounds,
                seconds=seconds,
                against="peer",
                between=lambda: _settle(on),
            )
        ]
    finally:
        over.set()
        hearing.join()


def _hear(url: str, over: threading.Event) -> None:
    """Takes every bell and task away at once: so each submit has to ring."""
    with redis.Redis.from_url(url) as wire:
        while not over.is_set():
            wire.blpop([f"{PREFIX}cpu", "peer"], timeout=1)


def _settle(on: sides.Ground) -> None:
    """What was submitted waits no longer: the next round finds the queue as this one did."""
    with on.database.transaction() as session:
        session.execute(
            text("UPDATE jobs SET state = 'cancelled', finished_at = created_at WHERE state = 'queued'")
        )
        session.execute(text("DELETE FROM peer_jobs"))

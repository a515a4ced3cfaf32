"""(d) From a submit over HTTP to the commit of the claim, workers warm, one job at a time.

Plait's worker rings after the commit of its claim; the peer's task tells when it begins (plain Celery) and when it
has written that it runs, which is what a claim does. All three are heard on one Redis subscription.
"""

import time
from statistics import median
from typing import Any

import httpx
import redis

from benchmarks.service import sides
from bus.celery import PREFIX

_LONGEST_S = 30.0


def measure(on: sides.Ground, *, rounds: int) -> list[dict[str, Any]]:
    ours, theirs = sides.plait(on), sides.naive(on, keys=False)
    sides.worker(on)
    sides.naive_worker(on)
    took: dict[str, list[float]] = {"plait": [], "peer, begun": [], "peer, written": []}
    with redis.Redis.from_url(on.redis_url).pubsub() as channel:
        channel.psubscribe(f"{PREFIX}job:*", "peer:*")
        for number in range(rounds + 2):
            claimed = _ours(ours, channel)
            begun, written = _theirs(theirs, channel)
            # The first two warm everything up.
            if number >= 2:
                took["plait"].append(claimed)
                took["peer, begun"].append(begun)
                took["peer, written"].append(written)
    base = median(took["peer, begun"])
    return [
        {
            "contender": name,
            "jobs": rounds,
            "p50_ms": round(median(times) * 1000, 2),
            "p99_ms": round(max(times) * 1000, 2),
            "ratio": round(median(times) / base, 2),
        }
        for name, times in took.items()
    ]


def _ours(side: sides.Side, channel: Any) -> float:
    began = time.perf_counter()
    job_id = side.made()
    _heard(channel, f"{PREFIX}job:{job_id}")
    took = time.perf_counter() - began
    until = time.monotonic() + _LONGEST_S
    while side.get(job_id).json()["status"] == "validating_files" and time.monotonic() < until:
        time.sleep(0.05)
    # Its worker says so when it is free again; the next submit must not find it busy.
    time.sleep(0.3)
    return took


def _theirs(side: sides.Side, channel: Any) -> tuple[float, float]:
    began = time.perf_counter()
    job_id = side.made()
    told: dict[bytes, float] = {}
    while len(told) < 2:
        word = _heard(channel, f"peer:{job_id}")
        told[word] = time.perf_counter() - began
    return told[b"begun"], told[b"written"]


def _heard(channel: Any, name: str) -> bytes:
    until = time.monotonic() + _LONGEST_S
    while time.monotonic() < until:
        message = channel.get_message(timeout=1.0)
        if message and message["type"] == "pmessage" and message["channel"] == name.encode():
            word: bytes = message["data"]
            return word
    raise httpx.ReadTimeout(f"nobody took the job of {name}")

"""(b) Status GETs: the whole answer, and the 304 to a caller that names what it has; an empty route is the ceiling."""

from typing import Any

from benchmarks.service import sides
from benchmarks.service.compare import Contender, in_turn

CLIENTS = (1, 8, 32)


def measure(on: sides.Ground, *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    ours, bare, keyed = sides.plait(on), sides.naive(on, keys=False), sides.naive(on, keys=True)
    made = {side.port: side.made() for side in (ours, bare, keyed)}
    about = {side.port: side.about(made[side.port]) for side in (ours, bare, keyed)}
    tag = ours.get(made[ours.port]).headers["ETag"]
    contenders = [
        Contender("empty route", bare.port, "GET /empty HTTP/1.1\r\nHost: bench\r\n\r\n"),
        Contender("plait", ours.port, about[ours.port]),
        Contender("plait, matching ETag", ours.port, sides.with_tag(about[ours.port], tag), expect=304),
        Contender("peer", bare.port, about[bare.port]),
        Contender("peer with a key look-up", keyed.port, about[keyed.port]),
    ]
    return [
        row
        for clients in CLIENTS
        for row in in_turn(contenders, clients=clients, rounds=rounds, seconds=seconds, against="peer")
    ]

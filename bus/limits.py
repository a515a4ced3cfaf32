"""Request rates over all API processes: the buckets lie in the broker and may be lost, which only forgives.

A process takes a small share of what is left at once and spends it from memory, so that a tenant far from its
limit costs no step to the broker; near the limit the share is one request, and the count is exact. Without a
broker each process keeps a bucket of its own: the limit then holds by process, and nobody is refused for our fault.
"""

import logging
import threading
import time
from dataclasses import dataclass

import redis

from bus.bells import SILENT_S, TIMEOUT_S
from bus.celery import PREFIX
from domain.rate import Draw, Rate, Standing, draw, standing

log = logging.getLogger(__name__)

#: A process takes at most this part of what is left: so much can be unspent while another process is refused.
SHARE = 20
#: What is in hand goes back after this long, so that what answers tell is not older.
IN_HAND_S = 1.0

#: The rule of `domain.rate.draw` as one atomic step, by the broker's own clock: `returned` requests go back, then a
#: `share`-th of what is left is taken, or one.
_DRAW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, returned, share = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local full_at = tonumber(redis.call('GET', KEYS[1]) or 0)
local full_in = math.max(full_at - returned * interval - now, 0)
local free = math.floor((burst * interval - full_in) / interval)
local taken = 0
if free >= 1 then taken = math.max(1, math.floor(free / share)) end
full_in = full_in + taken * interval
redis.call('SET', KEYS[1], string.format('%.0f', now + full_in), 'PX', math.max(1, math.ceil(full_in / 1000)))
return {taken, full_in}
"""


@dataclass
class _Hand:
    """Requests of one tenant that this process has taken and not yet spent."""

    left: int = 0
    #: Monotonic microseconds: when the bucket will be full, counting only what was spent.
    full_at: int = 0
    taken_at: float = 0.0


class Limits:
    """Spends requests of tenants. Safe in any thread; never raises, and never waits longer than a bell does."""

    def __init__(self, redis_url: str) -> None:
        self._lock = threading.Lock()
        self._hands: dict[tuple[str, Rate], _Hand] = {}
        #: Buckets of this process alone, for when there is no broker.
        self._own: dict[str, int] = {}
        self._silent_until = 0.0
        self._redis = _client(redis_url) if redis_url else None
        self._step = self._redis.register_script(_DRAW) if self._redis else None

    def spend(self, tenant: str, rate: Rate) -> Standing:
        """One request of `tenant`: whether it passes, and how the tenant stands then."""
        with self._lock:
            hand = self._hands.setdefault((tenant, rate), _Hand())
            if hand.left > 0 and time.monotonic() - hand.taken_at < IN_HAND_S:
                return _spent(hand, rate)
            returned, hand.left = hand.left, 0
        drawn = self._draw_there(tenant, rate, returned)
        with self._lock:
            if drawn is None:
                drawn = self._draw_here(tenant, rate)
            return _filled(hand, rate, drawn)

    def _draw_there(self, tenant: str, rate: Rate, returned: int) -> Draw | None:
        """From the broker's bucket; None while it does not answer. One request a second finds that out."""
        if self._step is None or time.monotonic() < self._silent_until:
            return None
        if self._silent_until:
            self._silent_until = time.monotonic() + SILENT_S
        try:
            answer = self._step(
                keys=[f"{PREFIX}rate:{tenant}"], args=[rate.interval, rate.burst, returned, SHARE]
            )
        except (redis.RedisError, OSError) as error:
            self._silent_until = time.monotonic() + SILENT_S
            log.warning("the broker does not answer (%s); rates hold by process", type(error).__name__)
            return None
        self._silent_until = 0.0
        return Draw(*answer)

    def _draw_here(self, tenant: str, rate: Rate) -> Draw:
        now = time.monotonic_ns() // 1000
        drawn = draw(self._own.get(tenant, 0), now, rate)
        self._own[tenant] = now + drawn.full_in
        return drawn


def _filled(hand: _Hand, rate: Rate, drawn: Draw) -> Standing:
    """The hand with what was drawn; one of it is spent at once."""
    now = time.monotonic_ns() // 1000
    if drawn.taken == 0:
        return standing(rate, drawn.full_in, passed=False)
    hand.left += drawn.taken
    hand.taken_at = time.monotonic()
    # What is in hand is not spent yet, whoever took it.
    hand.full_at = now + drawn.full_in - hand.left * rate.interval
    return _spent(hand, rate)


def _spent(hand: _Hand, rate: Rate) -> Standing:
    now = time.monotonic_ns() // 1000
    hand.left -= 1
    hand.full_at = max(hand.full_at, now) + rate.interval
    return standing(rate, hand.full_at - now, passed=True)


def _client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(
        redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=None
    )

"""How many requests a tenant may send: a bucket that refills evenly. The rule alone; `bus.limits` keeps the buckets.

The bucket is one number, the instant at which it will be full again ("theoretical arrival time" of the
generic cell rate algorithm, ITU-T I.371). All times in here are whole microseconds.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """`per_minute` requests in the long run, `burst` of them at once."""

    per_minute: int
    burst: int

    @property
    def interval(self) -> int:
        """Microseconds in which one request comes back."""
        return max(1, round(60_000_000 / self.per_minute))


@dataclass(frozen=True)
class Draw:
    """What came out of the bucket: `taken` requests (0: none is left), and when it will be full from now."""

    taken: int
    full_in: int


@dataclass(frozen=True)
class Standing:
    """How a tenant stands after a request: what its answer tells. Seconds."""

    limit: int
    remaining: int
    #: Until all of `limit` may be sent at once again.
    reset_s: float
    #: Until a request that was refused would pass; 0 where it passed.
    retry_s: float


def draw(full_at: int, now: int, rate: Rate) -> Draw:
    """Takes one request, if one is left. `bus.limits` has the same rule for the broker, where it takes more at once."""
    full_in = max(full_at - now, 0)
    taken = 1 if full_in + rate.interval <= rate.burst * rate.interval else 0
    return Draw(taken, full_in + taken * rate.interval)


def standing(rate: Rate, full_in: int, *, passed: bool) -> Standing:
    """How a bucket that will be full in `full_in` stands."""
    room = rate.burst * rate.interval - full_in
    return Standing(
        limit=rate.burst,
        remaining=max(0, room // rate.interval),
        reset_s=max(0, full_in) / 1e6,
        retry_s=0.0 if passed else max(1, rate.interval - room) / 1e6,
    )

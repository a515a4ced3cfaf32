"""Decides whether and when a request is tried again. Waits for nothing and sends nothing."""

import math
import random

#: Tries after the first one.
MAX_RETRIES = 2
#: A server that asks for a longer wait is believed: the user is told instead of kept waiting.
LONGEST_WAIT_S = 60.0
_STATUSES = frozenset({408, 409, 429})


def is_passing(status: int, should_retry: str | None) -> bool:
    """Whether the same request may succeed later; the server's `x-should-retry` has the last word."""
    if should_retry in ("true", "false"):
        return should_retry == "true"
    return status in _STATUSES or status >= 500


def delay(attempt: int, retry_after: float | None = None) -> float | None:
    """Seconds before the next try, or None if that is too far off. `attempt` counts from 0."""
    if retry_after is not None:
        return retry_after if retry_after <= LONGEST_WAIT_S else None
    return backoff(attempt)


def backoff(attempt: int, longest: float = 8.0) -> float:
    """0.5 s, 1 s, 2 s, ...; up to a quarter less, so that many clients do not come back as one."""
    return float(min(0.5 * 2 ** min(attempt, 16), longest) * random.uniform(0.75, 1.0))


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header in seconds; a date or nonsense counts as absent."""
    try:
        value = float(retry_after or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None

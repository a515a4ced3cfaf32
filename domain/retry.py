"""When a failed or lost claim is tried again, and when it is enough."""

import random

BASE_S = 1.0
CAP_S = 300.0
MAX_ATTEMPTS = 3
#: Deaths are counted apart from attempts: a dying machine must not eat the user's retries,
#: and a job that kills its worker must not do so for ever.
MAX_DEATHS = 3


def backoff_s(attempt: int, *, base: float = BASE_S, cap: float = CAP_S) -> float:
    """Seconds until attempt number `attempt` + 1: doubling, capped, with jitter in [.5, 1)."""
    return min(cap, base * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


def may_retry(attempt: int, max_attempts: int) -> bool:
    return attempt < max_attempts


def is_poison(deaths: int, max_deaths: int) -> bool:
    """Whether a job that has just died for the `deaths`-th time is given up."""
    return deaths >= max_deaths

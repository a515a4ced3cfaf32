"""Waits for work on the server: until it is final, and through a restart. Knows no shape and no route."""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from plait import retries
from plait.errors import PlaitError
from plait.transport import Transport

T = TypeVar("T")
OnTrouble = Callable[[PlaitError], None]

FINAL = frozenset({"succeeded", "failed", "cancelled"})
#: Between two looks, unless the server says otherwise.
LOOK_EVERY_S = 1.0
#: How long a server that is gone is waited for: long enough for a restart.
PATIENCE_S = 180.0
#: The longest that one request asks the server to hold its answer.
HOLD_S = 30


def patiently(
    look: Callable[[], T],
    pause: Callable[[float], object],
    patience_s: float = PATIENCE_S,
    on_trouble: OnTrouble | None = None,
) -> T:
    """What `look` returns. While the server is gone it is tried again; `on_trouble` hears of each failed try."""
    waited = 0.0
    for attempt in itertools.count():
        try:
            return look()
        except PlaitError as error:
            seconds = max(retries.backoff(attempt), error.retry_after or 0.0)
            if not error.passing or waited + seconds > patience_s:
                raise
            if on_trouble:
                on_trouble(error)
        pause(seconds)
        waited += seconds
    raise AssertionError("unreachable")


def seconds_of(wait: bool | float) -> float:
    """`wait` as callers write it: True is without end, False is not at all."""
    return math.inf if wait is True else max(0.0, float(wait))


def prefer(seconds: float) -> dict[str, str]:
    """The header that asks the server to hold its answer until the work is done."""
    return {"Prefer": f"wait={_hold(seconds)}"}


def until_final(transport: Transport, path: str, raw: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The object at `path`, of which `raw` is the first look, once it is final or `seconds` are over."""
    deadline = time.monotonic() + seconds
    while raw["status"] not in FINAL and (left := deadline - time.monotonic()) > 0:
        asked, status = time.monotonic(), raw["status"]
        hold = {"wait": _hold(left)}
        raw = patiently(lambda hold=hold: transport.get(path, hold), transport.wait)  # type: ignore[misc]
        held = time.monotonic() - asked
        if raw["status"] == status and held < LOOK_EVERY_S:
            # A server that holds no answers would be asked without a pause.
            transport.wait(min(LOOK_EVERY_S, max(left, 0.0)))
    return raw


def _hold(seconds: float) -> int:
    return math.ceil(min(seconds, HOLD_S))

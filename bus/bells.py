"""Bells: hints that something changed. Ringing never raises and never costs more than about 100 ms."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import redis

from bus.celery import ID, PREFIX, message
from domain.job import Lane

log = logging.getLogger(__name__)

TIMEOUT_S = 0.1
#: After a failure nobody is asked to wait for a dead broker again for this long.
SILENT_S = 1.0
#: A lane with this many unheard bells needs no other: any of them will see the new row.
ENOUGH = 8


class Bells:
    """The ringing side. With an empty URL it is silent: workers then find work by polling."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._lock = threading.Lock()
        self._silent_until = 0.0
        self._redis: redis.Redis | None = None
        self._messages: dict[Lane, str] = {}
        #: How many bells each lane had when it was last rung; where there is room it is not looked at.
        self._unheard: dict[Lane, int] = {}

    def ring(self, lane: Lane, times: int = 1) -> bool:
        """Tells so many of the lane's workers that a job may be ready. Call it after COMMIT.

        True when the lane has as many unheard bells as it needs.
        """
        return bool(self._try(lambda: self._ring(lane, times)))

    def poke(self, worker: str | None) -> None:
        """Tells one worker (by its `lease_owner`) to look at its job again: a cancel or pause."""
        if worker:
            self._try(lambda: self._client().publish(f"{PREFIX}worker:{worker}", "."))

    def wake(self, job_id: str) -> None:
        """Tells whoever waits for a job that it has changed."""
        self._try(lambda: self._client().publish(f"{PREFIX}job:{job_id}", "."))

    def ready(self) -> bool:
        """Whether the broker answers."""
        try:
            return bool(self._url) and bool(self._client().ping())
        except redis.RedisError:
            return False

    def _ring(self, lane: Lane, times: int) -> bool:
        queue, unheard = f"{PREFIX}{lane}", self._unheard.get(lane, ENOUGH)
        if unheard + times > ENOUGH:
            unheard = int(self._client().llen(queue))
        if unheard < ENOUGH:
            bells = [self._bell(lane) for _ in range(min(times, ENOUGH - unheard))]
            unheard = int(self._client().lpush(queue, *bells))
        self._unheard[lane] = unheard
        return unheard >= ENOUGH

    def _bell(self, lane: Lane) -> str:
        """A message of Celery's for the lane. To have Celery make each anew takes several times as long."""
        if lane not in self._messages:
            self._messages[lane] = message(lane)
        return self._messages[lane].replace(ID, str(uuid.uuid4()))

    def _try(self, act: Callable[[], object]) -> object:
        """What `act` returns; None where the broker does not answer."""
        if not self._url or time.monotonic() < self._silent_until:
            return None
        try:
            return act()
        except (redis.RedisError, OSError) as error:
            self._silent_until = time.monotonic() + SILENT_S
            log.warning(
                "the broker does not answer (%s); workers find the work by polling", type(error).__name__
            )
            return None

    def _client(self) -> redis.Redis:
        with self._lock:
            if self._redis is None:
                self._redis = redis.Redis.from_url(
                    self._url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=None
                )
            return self._redis


def heard(redis_url: str, worker: str, stopped: threading.Event) -> Iterator[None]:
    """Yields at each poke for `worker` until `stopped`; lost connections are made again, quietly."""
    while not stopped.is_set():
        try:
            with redis.Redis.from_url(
                redis_url, socket_connect_timeout=1, socket_timeout=10, health_check_interval=5
            ).pubsub() as channel:
                channel.subscribe(f"{PREFIX}worker:{worker}")
                while not stopped.is_set():
                    message = channel.get_message(timeout=1.0)
                    if message is not None and message["type"] == "message":
                        yield
        except (redis.RedisError, OSError):
            stopped.wait(0.5)

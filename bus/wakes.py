"""Waiting for a job to change: one subscription a process feeds every waiting request and stream.

A wake is a hint. Whoever waits reads the database when the wait is over, whatever ended it.
"""

import logging
import threading
import time
from collections.abc import Callable

import redis

from bus.celery import PREFIX

log = logging.getLogger(__name__)

#: Without a broker, or after a lost wake, a waiter looks at the database this often.
LOOK_EVERY_S = 1.0
MOST_COUNTS = 10_000
_CHANNEL = f"{PREFIX}job:"


class _Bell:
    """Those who wait for one job."""

    def __init__(self, lock: threading.Lock) -> None:
        self.changed = threading.Condition(lock)
        self.waiters = 0


class Wakes:
    """Hears `bus.bells.Bells.wake` of any process. Starts its thread at the first wait; safe in any thread."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._lock = threading.Lock()
        self._count = 0
        self._heard: dict[str, int] = {}
        # One condition a job: a wake of one job rouses nobody who waits for another.
        self._bells: dict[str, _Bell] = {}
        self._hear: Callable[[str], None] = lambda _job_id: None
        self._thread: threading.Thread | None = None

    def wait(self, job_id: str, heard: int, seconds: float) -> int:
        """Returns when the job was woken after `heard`, or after a look's time (at most `seconds`).

        What it returns is the next call's `heard`; begin with 0. The caller looks at the database between two
        waits, so a wake that was lost or came too early costs LOOK_EVERY_S, and none is missed in between.
        """
        self._start()
        with self._lock:
            bell = self._bells.setdefault(job_id, _Bell(self._lock))
            bell.waiters += 1
            try:
                bell.changed.wait_for(lambda: self._heard.get(job_id, 0) > heard, min(seconds, LOOK_EVERY_S))
                return max(heard, self._heard.get(job_id, 0))
            finally:
                bell.waiters -= 1
                if not bell.waiters:
                    del self._bells[job_id]

    def listen(self, hear: Callable[[str], None]) -> None:
        """`hear` is called with the id of each job that is woken, in the thread that listens; it must be quick."""
        self._hear = hear
        self._start()

    def _start(self) -> None:
        with self._lock:
            if self._url and self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="wakes", daemon=True)
                self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                with redis.Redis.from_url(
                    self._url, socket_connect_timeout=1, socket_timeout=10, health_check_interval=5
                ).pubsub() as channel:
                    channel.psubscribe(f"{_CHANNEL}*")
                    while True:
                        message = channel.get_message(timeout=1.0)
                        if message is not None and message["type"] == "pmessage":
                            self.note(message["channel"].decode().removeprefix(_CHANNEL))
            except (redis.RedisError, OSError) as error:
                log.debug("no wakes (%s); waiters look at the database", type(error).__name__)
                time.sleep(0.5)

    def note(self, job_id: str) -> None:
        """The job changed: whoever waits for it is woken."""
        with self._lock:
            # One count for all jobs: it rises even for a job whose last was forgotten.
            self._count += 1
            self._heard[job_id] = self._count
            self._forget()
            if job_id in self._bells:
                self._bells[job_id].changed.notify_all()
        self._hear(job_id)

    def _forget(self) -> None:
        """Counts of jobs that nobody waits for go, once there are many."""
        if len(self._heard) > MOST_COUNTS:
            self._heard = {job: n for job, n in self._heard.items() if job in self._bells}

"""A worker process: Celery hears the bells of one lane, an idle thread polls when none rings."""

import contextlib
import logging
import random
import socket
import threading
from typing import Any

from celery import Celery, bootsteps, signals

import settings as configuration
from bus.celery import TASK, make
from domain.job import Lane
from worker.keeper import Keeper

log = logging.getLogger(__name__)


class Idle(bootsteps.StartStopStep):
    """Polls when no bell was heard, whatever the broker does; so work goes on without one."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self.keeper: Keeper = parent.app.keeper
        self.poll_s: float = parent.app.poll_s
        self.over = threading.Event()

    def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        self.keeper.listen()
        self.thread = threading.Thread(target=self._poll, name="idle-poll")
        self.thread.start()

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        """Celery asks for the next message only when its loop turns: turn it whenever a task has ended."""
        heard, parent.app.loop_rope = socket.socketpair()
        heard.setblocking(False)
        parent.app.loop_rope.setblocking(False)
        hub.add_reader(heard, _drained, heard)

    def _poll(self) -> None:
        self.keeper.warm_up()
        while not self.over.wait(random.uniform(0.8, 1.2) * self.poll_s):
            self.keeper.work()
        # A child dies with the thread that started it: so this one outlives the job in hand.
        self.keeper.close()

    def stop(self, parent: Any) -> None:  # noqa: ARG002
        self.keeper.drain()
        self.over.set()
        self.thread.join(30)

    terminate = stop


def _drained(heard: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        heard.recv(4096)


def create(settings: configuration.Settings, lane: Lane) -> Celery:
    """The Celery app of one worker process, with its one Keeper made before any thread."""
    app = make(settings.redis_url, lane=lane)
    app.keeper, app.poll_s, app.loop_rope = Keeper(settings, lane), settings.poll_s, None
    app.steps["worker"].add(Idle)

    @app.task(name=TASK)
    def run(_lane: str) -> None:
        app.keeper.work()

    @signals.task_postrun.connect(weak=False)
    def turn_the_loop(**_: Any) -> None:
        if app.loop_rope is not None:
            with contextlib.suppress(BlockingIOError):
                app.loop_rope.send(b".")

    @signals.worker_shutting_down.connect(weak=False)
    def drain(**_: Any) -> None:
        app.keeper.drain()

    return app


def serve(settings: configuration.Settings, lane: Lane) -> int:
    """Runs a worker until it is told to end; SIGTERM, SIGINT and SIGQUIT all drain."""
    app = create(settings, lane)
    worker = app.Worker(
        pool="threads",
        concurrency=1,
        queues=[str(lane)],
        hostname=f"{lane}@{app.keeper.name}",
        loglevel=settings.log_level.upper(),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)

"""The Celery application that both ends share: one task, `plait.run(lane)`, whose message is only a bell."""

import json
from urllib.parse import parse_qsl, urlencode, urlsplit

from celery import Celery
from kombu import Queue

from domain.job import Lane

TASK = "plait.run"
PREFIX = "plait:"
#: Stands in a `message` for the id that each bell has of its own.
ID = "00000000-0000-4000-8000-000000000000"


def make(redis_url: str, *, lane: Lane | None = None) -> Celery:
    """A Celery app on `redis_url`; with a lane, one that consumes that lane's queue.

    Nothing returns through the queue: no result backend, no acknowledgement that matters.
    """
    app = Celery("plait", broker=_broker(redis_url), set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        result_backend=None,
        task_acks_late=False,
        task_publish_retry=False,
        task_default_queue=lane or Lane.CPU,
        task_queues=[Queue(lane)] if lane else None,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 5,
            "socket_connect_timeout": 1,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "global_keyprefix": PREFIX,
        },
    )
    return app


def _broker(redis_url: str) -> str:
    """As Celery writes it: redis-py has other words for a unix socket and for the database behind it."""
    where = urlsplit(redis_url)
    if where.scheme != "unix":
        return redis_url or "memory://localhost"
    options = {"virtual_host" if name == "db" else name: value for name, value in parse_qsl(where.query)}
    return f"redis+socket://{where.netloc}{where.path}?{urlencode(options)}".rstrip("?")


def message(lane: Lane) -> str:
    """What Celery puts on the lane's list to have the task run, with `ID` for its ids.

    Celery itself makes it, for a broker in memory. It is Celery's message protocol 2 in kombu's envelope.
    """
    with make("") as app, app.connection_for_read() as connection:
        app.send_task(TASK, args=[str(lane)], queue=str(lane), task_id=ID, root_id=ID)
        sent = connection.default_channel.basic_get(str(lane), no_ack=True).serializable()
    sent["properties"]["delivery_tag"] = ID
    # It may be made while a worker's task runs, whose child it is not.
    sent["headers"]["parent_id"] = None
    return json.dumps(sent)

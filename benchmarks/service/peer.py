"""The naive peer: what a competent person writes in an afternoon. Flask, SQLAlchemy, Celery `delay()`.

It has a table, a unique idempotency key, an insert that is committed before `delay()`, and a JSON answer. With
`keys` it also looks a bearer key up, as anyone would who has several users. It has no quotas, no leases, no fences,
no events, no validation beyond JSON, no request log: what it leaves out makes it faster, never slower.
"""

import hashlib
import os
import sys
import time
import uuid
from typing import Any

import redis
from celery import Celery
from flask import Flask, Response, jsonify, request
from gunicorn.app.base import BaseApplication
from sqlalchemy import JSON, String, create_engine, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker


class Base(DeclarativeBase):
    pass


class Key(Base):
    __tablename__ = "keys"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64))


class Job(Base):
    __tablename__ = "peer_jobs"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    status: Mapped[str] = mapped_column(String(16), default="queued")
    spec: Mapped[Any] = mapped_column(JSON)
    created_at: Mapped[float]
    started_at: Mapped[float | None]

    def shape(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "job",
            "status": self.status,
            "created_at": int(self.created_at),
            "started_at": self.started_at,
            **self.spec,
        }


def sessions(url: str) -> "sessionmaker[Session]":
    """SQLite in WAL mode with synchronous=FULL; PostgreSQL as it comes (synchronous_commit=on)."""
    if not url.startswith("sqlite"):
        return sessionmaker(create_engine(url, pool_size=32), expire_on_commit=False)
    engine = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    return sessionmaker(engine, expire_on_commit=False)


def make_celery(redis_url: str, url: str) -> Celery:
    """One task; its worker says on a channel when it has begun, so that the benchmark can hear it."""
    app = Celery("peer", broker=redis_url.replace("unix://", "redis+socket://", 1), set_as_current=False)
    app.conf.update(task_ignore_result=True, task_default_queue="peer", worker_prefetch_multiplier=1)
    wire, session_of = redis.Redis.from_url(redis_url), sessions(url)

    @app.task(name="peer.begin")
    def begin(job_id: str) -> None:
        wire.publish(f"peer:{job_id}", "begun")
        with session_of() as session:
            job = session.get_one(Job, job_id)
            job.status, job.started_at = "running", time.time()
            session.commit()
        wire.publish(f"peer:{job_id}", "written")

    return app


def make_app(url: str, redis_url: str, keys: bool) -> Flask:
    app, session_of = Flask("peer"), sessions(url)
    begin = make_celery(redis_url, url).tasks["peer.begin"]

    @app.get("/empty")
    def empty() -> Response:
        return Response(b"{}", content_type="application/json")

    @app.post("/jobs")
    def create() -> Any:
        with session_of() as session:
            if keys and not known(session):
                return {"error": "unknown key"}, 401
            key = request.headers.get("Idempotency-Key")
            job = Job(
                id=str(uuid.uuid4()), idempotency_key=key, spec=request.get_json(), created_at=time.time()
            )
            session.add(job)
            try:
                session.commit()
            except IntegrityError:
                session.rollback()
                job = session.scalars(select(Job).where(Job.idempotency_key == key)).one()
            else:
                begin.delay(job.id)
            return jsonify(job.shape())

    @app.get("/jobs/<job_id>")
    def retrieve(job_id: str) -> Any:
        with session_of() as session:
            if keys and not known(session):
                return {"error": "unknown key"}, 401
            job = session.get(Job, job_id)
            return jsonify(job.shape()) if job else ({"error": "unknown job"}, 404)

    return app


def known(session: Session) -> bool:
    secret = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return session.get(Key, hashlib.sha256(secret.encode()).hexdigest()) is not None


class Server(BaseApplication):
    """gunicorn as the product runs it: one process of threads, connections kept."""

    def load_config(self) -> None:
        options = {
            "bind": os.environ["PEER_BIND"],
            "workers": 1,
            "threads": int(os.environ["PEER_THREADS"]),
            "worker_class": "gthread",
            "keepalive": 75,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return make_app(os.environ["PEER_DATABASE"], os.environ["PEER_REDIS"], os.environ["PEER_KEYS"] == "1")


def work() -> None:
    """The peer's worker: the same pool and number of threads as Plait's."""
    app = make_celery(os.environ["PEER_REDIS"], os.environ["PEER_DATABASE"])
    app.Worker(pool="threads", concurrency=1, queues=["peer"], loglevel="WARNING").start()


if __name__ == "__main__":
    work() if sys.argv.pop(1) == "worker" else Server().run()

"""The door beside neighbours that are silent: a broker and a database that take connections and answer nothing."""

import dataclasses
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

import settings as configuration
from db import tenants
from ops import broker
from support.databases import migrated, postgres_url
from support.stack import ROOT, until
from support.valve import Valve, before_broker, before_postgresql

#: What a submit may take longer while the broker is silent, and when a request hears of a silent database.
RING_S, DATABASE_S = 0.3, 3.0
#: More than the process has threads.
CROWD = 48


@dataclass
class Door:
    http: httpx.Client
    redis: Valve
    database: Valve
    file: str = ""

    def submit(self) -> httpx.Response:
        return self.http.post(
            "/v1/fine_tuning/jobs", json={"model": "late-fusion", "training_file": self.file}
        )

    def timed_submit(self) -> float:
        began = time.monotonic()
        assert self.submit().status_code == 200
        return time.monotonic() - began

    def ready(self) -> httpx.Response:
        return self.http.get("/readyz")

    def crowd(self, path: str) -> list[int]:
        """The statuses of as many requests at once."""
        with ThreadPoolExecutor(CROWD) as pool:
            return [r.status_code for r in pool.map(lambda _: self.http.get(path), range(CROWD))]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A real web process, with a valve before each of its neighbours."""
    folder = tmp_path_factory.mktemp("door")
    process, redis_url = broker.start(folder)
    with (
        postgres_url() as url,
        migrated(url) as database,
        before_postgresql(url) as (database_valve, database_url),
        before_broker(redis_url) as (redis_valve, redis_url_through),
        socket.create_server(("127.0.0.1", 0)) as door,
    ):
        with database.transaction() as session:
            tenants.ensure(session)
            _, key = tenants.create_key(session, tenants.DEFAULT_TENANT, name="test")
        settings = dataclasses.replace(
            configuration.Settings(data=folder / "data", database_url=database_url, log_level="error"),
            redis_url=redis_url_through,
        )
        api = subprocess.Popen(
            [sys.executable, "-m", "manage", "api", "--fd", str(door.fileno())],
            cwd=ROOT,
            env=configuration.environment(settings),
            pass_fds=[door.fileno()],
        )
        base = f"http://127.0.0.1:{door.getsockname()[1]}"
        headers = {"Authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=CROWD, max_keepalive_connections=0)
        with httpx.Client(base_url=base, headers=headers, timeout=30, limits=limits) as http:
            yield Door(http, redis_valve, database_valve)
        api.terminate()
        assert api.wait(20) == 0
    process.kill()
    process.wait()
    broker.remove_socket(redis_url)


@pytest.fixture
def door(served: Door) -> Iterator[Door]:
    until(served.ready, lambda r: r.json().get("broker") == "ok", limit_s=30)
    form = {"purpose": "fine-tune"}
    answer = served.http.post("/v1/files", data=form, files={"file": ("t.jsonl", b'{"a": 1}\n')})
    served.file = answer.json()["id"]
    yield served
    served.redis.open()
    served.database.open()


def test_a_silent_broker_costs_a_submit_less_than_a_third_of_a_second(door: Door) -> None:
    usual = statistics.median(door.timed_submit() for _ in range(5))
    door.redis.shut()

    beside_silence = [door.timed_submit() for _ in range(10)]

    assert max(beside_silence) < usual + RING_S
    assert door.ready().json() == {"status": "degraded", "database": "ok", "broker": "down"}


def test_who_waits_for_a_job_hears_of_its_end_although_the_broker_is_silent(door: Door) -> None:
    job = door.submit().json()["id"]
    door.redis.shut()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: door.http.get(f"/v1/fine_tuning/jobs/{job}?wait=20"))
        door.http.post(f"/v1/fine_tuning/jobs/{job}/cancel")

        assert waiting.result(10).json()["status"] == "cancelled"


def test_a_broker_that_is_back_is_used_again(door: Door) -> None:
    door.redis.shut()
    until(door.ready, lambda r: r.json()["broker"] == "down", limit_s=10)

    door.redis.open()

    until(door.ready, lambda r: r.json()["broker"] == "ok", limit_s=10)


@pytest.mark.parametrize("path", ["/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/{job}", "/readyz"])
def test_a_silent_database_is_told_of_within_three_seconds(door: Door, path: str) -> None:
    path = path.format(job=door.submit().json()["id"])
    # So the pool has idle connections: one that is silent says so of the others too.
    assert set(door.crowd(path)) == {200}
    door.database.shut()
    began = time.monotonic()

    answer = door.http.get(path)

    assert time.monotonic() - began < DATABASE_S
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "database_unavailable"
    assert int(answer.headers["Retry-After"]) >= 1
    assert door.http.get("/healthz").status_code == 200


def test_a_submit_beside_a_silent_database_is_refused_and_makes_one_job_afterwards(door: Door) -> None:
    headers, body = {"Idempotency-Key": "once"}, {"model": "late-fusion", "training_file": door.file}
    door.database.shut()
    refused = door.http.post("/v1/fine_tuning/jobs", json=body, headers=headers)
    door.database.open()

    def send() -> httpx.Response:
        return door.http.post("/v1/fine_tuning/jobs", json=body, headers=headers)

    made = until(send, lambda r: r.status_code == 200, limit_s=10).json()

    assert refused.status_code == 503
    assert send().json()["id"] == made["id"]


def test_more_requests_than_threads_are_all_refused_in_time_and_all_served_afterwards(door: Door) -> None:
    assert set(door.crowd("/v1/fine_tuning/jobs")) == {200}
    door.database.shut()
    began = time.monotonic()

    refused = door.crowd("/v1/fine_tuning/jobs")

    # The last of them waits for a thread before it waits for the database.
    assert time.monotonic() - began < 2 * DATABASE_S
    assert set(refused) == {503}
    door.database.open()
    until(door.ready, lambda r: r.status_code == 200, limit_s=10)
    assert set(door.crowd("/v1/fine_tuning/jobs")) == {200}


def test_a_stream_outlives_a_silent_database_and_leaves_no_event_out(door: Door) -> None:
    job = door.submit().json()["id"]
    told: list[str] = []

    with door.http.stream("GET", f"/v1/fine_tuning/jobs/{job}/events?stream=true") as stream:
        lines = stream.iter_lines()
        told.append(next(line for line in lines if line.startswith("id:")))
        door.database.shut()
        assert door.ready().status_code == 503
        door.database.open()
        until(
            lambda: door.http.post(f"/v1/fine_tuning/jobs/{job}/cancel").status_code,
            lambda status: status in (200, 409),
            limit_s=10,
        )
        told += [line for line in lines if line.startswith("id:")]

    assert told == [f"id: {n}" for n in range(1, len(told) + 1)]
    assert len(told) > 1

"""The web process as it is started: the stock client against it, its size, and how it ends."""

import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import psutil
import pytest

import settings as configuration
from db import jobs, predictions, tenants
from db.session import Database
from domain.families import FAMILIES, PRESETS
from support.databases import migrated
from support.predictions import registered
from support.stack import until

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "transformers", "alembic", "boto3", "pandas", "numpy", "torchmetrics", "sklearn")


@dataclass
class Served:
    process: "subprocess.Popen[bytes]"
    port: int
    key: str
    database_url: str

    def raw(self, request: bytes) -> str:
        """What the server answers to these very bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as wire:
            wire.sendall(request)
            return b"".join(iter(lambda: wire.recv(65536), b"")).decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = configuration.Settings(
        data=tmp_path_factory.mktemp("served"), max_upload_bytes=1_000_000, log_level="warning"
    )
    with migrated(settings.database) as database, database.transaction() as session:
        tenants.ensure(session)
        _, key = tenants.create_key(session, tenants.DEFAULT_TENANT, name="test")
    with socket.create_server(("127.0.0.1", 0)) as door:
        process = start(settings, door)
        try:
            yield Served(process, door.getsockname()[1], key, settings.database)
        finally:
            process.terminate()
            process.wait(20)


def start(settings: configuration.Settings, door: socket.socket) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "manage", "api", "--fd", str(door.fileno())],
        cwd=ROOT,
        env=configuration.environment(settings),
        pass_fds=[door.fileno()],
    )


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    base_url = f"http://127.0.0.1:{served.port}/v1"
    with openai.OpenAI(base_url=base_url, api_key=served.key, max_retries=0) as made:
        yield made


def test_the_stock_client_drives_files(client: openai.OpenAI, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b'{"a": 1}\n')

    file = client.files.create(file=tmp_path / "train.jsonl", purpose="fine-tune")
    listed = [entry.id for entry in client.files.list(limit=1)]

    assert file.filename == "train.jsonl"
    assert file.id in listed
    assert client.files.retrieve(file.id).bytes == 9
    assert client.files.content(file.id).read() == b'{"a": 1}\n'
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_the_stock_client_drives_jobs(client: openai.OpenAI) -> None:
    file = client.files.create(file=("t.jsonl", b'{"a": 1}\n'), purpose="fine-tune")

    made = [
        client.fine_tuning.jobs.create(
            model="late-fusion",
            training_file=file.id,
            seed=n,
            metadata={"n": str(n)},
            extra_body={"multimodal": {"fusion": {"dim": 32}}, "priority": 5},
        )
        for n in range(3)
    ]
    listed = [job.id for job in client.fine_tuning.jobs.list(limit=2)]
    cancelled = client.fine_tuning.jobs.cancel(made[0].id)
    events = list(client.fine_tuning.jobs.list_events(made[0].id, limit=1))

    assert [job for job in listed if job in {m.id for m in made}] == [m.id for m in made][::-1]
    assert client.fine_tuning.jobs.retrieve(made[1].id).status == "validating_files"
    assert made[0].model_extra is not None
    assert made[0].model_extra["multimodal"]["fusion"]["dim"] == 32
    assert cancelled.status == "cancelled"
    assert len(events) == 2
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.cancel(made[0].id)


def test_the_stock_client_pages_by_metadata(client: openai.OpenAI) -> None:
    file = client.files.create(file=("t.jsonl", b'{"a": 1}\n'), purpose="fine-tune")
    mine = client.fine_tuning.jobs.create(model="late-fusion", training_file=file.id, metadata={"who": "me"})

    found = [job.id for job in client.fine_tuning.jobs.list(metadata={"who": "me"})]

    assert found == [mine.id]


def test_the_stock_client_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(FAMILIES + PRESETS)
    assert client.models.retrieve("late-fusion").owned_by == "plait"


def test_the_stock_client_understands_our_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(
            model="late-fusion", training_file="file-none", extra_body={"multimodal": {"colour": 1}}
        )

    assert caught.value.param == "multimodal.colour"
    assert caught.value.code == "invalid_spec"
    assert caught.value.request_id
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="plait-wrong").models.list()


def test_the_stock_client_hears_of_a_file_that_is_too_large(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.files.create(file=("big.zip", b"x" * 1_500_000), purpose="fine-tune")

    assert caught.value.status_code == 413


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBroken Header: x\r\n\r\n", 400),
    ],
    ids=["no HTTP", "a long line", "a broken header"],
)
def test_what_is_no_http_is_answered_in_the_one_shape(
    served: Served, request_line: bytes, status: int
) -> None:
    answer = served.raw(request_line)

    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert "x-request-id: req_" in answer
    assert '"error": {"message": ' in answer


def test_a_body_with_broken_chunks_is_a_400(served: Served) -> None:
    head = f"POST /v1/fine_tuning/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key}\r\n"
    head += "Connection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = served.raw(head.encode() + b"ZZ\r\n{}\r\n0\r\n\r\n")

    assert answer.startswith("HTTP/1.1 400 ")
    assert "broken_body" in answer


def test_every_process_of_the_door_idles_below_110_megabytes(served: Served, client: openai.OpenAI) -> None:
    client.models.list()
    client.files.create(file=("t.bin", b"x" * 900_000), purpose="user_data")

    parent = psutil.Process(served.process.pid)
    sizes = [p.memory_info().rss / 1e6 for p in (parent, *parent.children(recursive=True))]

    assert len(sizes) == 2
    assert max(sizes) < 110


def test_the_application_loads_nothing_heavy() -> None:
    program = (
        "import sys; from api import app, serve; from bus.bells import Bells;"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )

    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)

    assert answer.stdout.strip() == b"[]"


def test_sigterm_ends_it_soon_although_a_client_keeps_its_connection(tmp_path: Path) -> None:
    settings = configuration.Settings(data=tmp_path, log_level="warning")
    with migrated(settings.database), socket.create_server(("127.0.0.1", 0)) as door:
        process = start(settings, door)
        with closing(socket.create_connection(door.getsockname(), timeout=20)) as wire:
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert wire.recv(1000).startswith(b"HTTP/1.1 200")
            began = time.monotonic()

            process.send_signal(signal.SIGTERM)

            assert process.wait(15) == 0
            assert time.monotonic() - began < 8


def test_requests_that_wait_leave_threads_to_others_and_are_answered_at_sigterm(tmp_path: Path) -> None:
    settings = configuration.Settings(data=tmp_path, log_level="warning", api_threads=4)
    with migrated(settings.database) as database, socket.create_server(("127.0.0.1", 0)) as door:
        with database.transaction() as session:
            tenants.ensure(session)
            _, key = tenants.create_key(session, tenants.DEFAULT_TENANT, name="test")
        model = registered(database, tenants.DEFAULT_TENANT)
        process = start(settings, door)
        body = json.dumps({"model": model, "inputs": [{"text": "x"}]})
        head = f"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nPrefer: wait=60\r\n\r\n"
        with ExitStack() as wires:
            waiting = [
                wires.enter_context(socket.create_connection(door.getsockname(), timeout=20))
                for _ in range(4)
            ]
            for number, wire in enumerate(waiting, start=1):
                wire.sendall((head + body).encode())
                until(lambda n=number: len(predictions_of(database)) == n, bool, limit_s=20)

            # Three may be held; for the fourth there is no place.
            answered, _, _ = select.select(waiting, [], [], 20)
            assert len(answered) == 1
            process.send_signal(signal.SIGTERM)

            answers = [wire.recv(1000)[:12] for wire in waiting]
            assert answers == [b"HTTP/1.1 202"] * 4
        assert process.wait(15) == 0


def predictions_of(database: Database) -> list[predictions.Standing]:
    with database.reading() as session:
        return predictions.page(session, tenants.DEFAULT_TENANT)[0]


def test_the_worker_of_the_door_does_not_outlive_it(tmp_path: Path) -> None:
    settings = configuration.Settings(data=tmp_path, log_level="warning")
    with migrated(settings.database), socket.create_server(("127.0.0.1", 0)) as door:
        process = start(settings, door)
        with closing(socket.create_connection(door.getsockname(), timeout=20)) as wire:
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert wire.recv(1000).startswith(b"HTTP/1.1 200")
        children = psutil.Process(process.pid).children()

        process.kill()
        process.wait()

        assert psutil.wait_procs(children, timeout=10)[1] == []


@dataclass
class Watched:
    """A server of its own and a job that nobody works on, whose stream never ends by itself."""

    served: Served
    job_id: str

    @contextmanager
    def stream(self) -> Iterator[socket.socket]:
        """An open stream that has told its first event."""
        request = (
            f"GET /v1/fine_tuning/jobs/{self.job_id}/events?stream=true HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {self.served.key}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.served.port), timeout=20) as wire:
            wire.sendall(request.encode())
            heard = b""
            while b"data: " not in heard and b" 429 " not in heard:
                heard += wire.recv(65536)
            self.answer = heard.decode()
            yield wire


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    settings = configuration.Settings(data=tmp_path, api_threads=4, log_level="warning")
    with migrated(settings.database) as database, database.transaction() as session:
        tenants.ensure(session)
        _, key = tenants.create_key(session, tenants.DEFAULT_TENANT, name="test")
        new = jobs.Submission(tenant=tenants.DEFAULT_TENANT, spec={"model": "m", "training_file": "f"})
        job = jobs.submit(session, new)
    with socket.create_server(("127.0.0.1", 0)) as door:
        process = start(settings, door)
        try:
            yield Watched(Served(process, door.getsockname()[1], key, settings.database), job.id)
        finally:
            process.terminate()
            process.wait(20)


def test_open_streams_hold_none_of_the_threads_that_answer(watched: Watched) -> None:
    with ExitStack() as streams:
        for _ in range(20):
            streams.enter_context(watched.stream())

        # There are four threads.
        assert watched.served.raw(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ).startswith("HTTP/1.1 200")


def test_a_client_that_goes_away_frees_its_connection(watched: Watched) -> None:
    def connections() -> int:
        server = psutil.Process(watched.served.process.pid).children()[0]
        return sum(one.status != psutil.CONN_LISTEN for one in server.net_connections("tcp"))

    with watched.stream(), watched.stream():
        assert connections() == 2

    assert until(connections, lambda open_ones: open_ones == 0, limit_s=10) == 0


def test_a_connection_goes_on_after_the_end_of_its_stream(watched: Watched) -> None:
    with migrated(watched.served.database_url) as database, watched.stream() as wire:
        with database.transaction() as session:
            jobs.cancel(session, tenants.DEFAULT_TENANT, watched.job_id)
        heard = b""
        while not heard.endswith(b"0\r\n\r\n"):
            heard += wire.recv(65536)

        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"".join(iter(lambda: wire.recv(65536), b"")).startswith(b"HTTP/1.1 200")


def test_sigterm_ends_it_soon_although_a_stream_is_open(watched: Watched) -> None:
    with watched.stream() as wire:
        began = time.monotonic()

        watched.served.process.send_signal(signal.SIGTERM)
        rest = b"".join(iter(lambda: wire.recv(65536), b""))

        assert rest.endswith(b"0\r\n\r\n"), "the stream ends as one that was not cut"
        assert watched.served.process.wait(15) == 0
        assert time.monotonic() - began < 8

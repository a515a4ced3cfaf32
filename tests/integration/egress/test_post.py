"""One request to a judged address, over real sockets: pinned, bounded in time, without a second look at the name."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from domain.errors import BadRequest
from domain.targets import Address
from domain.webhooks import Code
from egress.guard import Guard, Unresolved, look_up
from egress.post import KEPT, Answer, NoAnswer, post
from support.scripted import HANG_UP, ScriptedServer
from support.scripted import Answer as Said

CERTIFICATES = Path(__file__).parents[2] / "support" / "certificates"
LOOPBACK = ip_address("127.0.0.1")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.stop()


def sent(url: str, guard: Guard | None = None, *, timeout_s: float = 5.0, trust: Any = None) -> Answer:
    way = (guard or Guard(["127.0.0.0/8"])).admit(url, timeout_s=timeout_s)
    context = trust or ssl.create_default_context()
    return post(way, {"x-test": "1"}, b'{"a":1}', timeout_s=timeout_s, trust=context)


def failure(url: str, *, guard: Guard | None = None, timeout_s: float = 5.0, trust: Any = None) -> Code:
    with pytest.raises(NoAnswer) as told:
        sent(url, guard, timeout_s=timeout_s, trust=trust)
    return told.value.code


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


def test_the_body_arrives_with_its_headers_at_the_path(server: ScriptedServer) -> None:
    server.on("POST /hook", {"thanks": True})

    answer = sent(f"{server.base_url}/hook?key=1")

    (asked,) = server.asked
    assert (answer.status, answer.body) == (200, b'{"thanks": true}')
    assert (asked.path, asked.query, asked.body) == ("/v1/hook", {"key": "1"}, b'{"a":1}')
    assert asked.headers["x-test"] == "1"
    assert asked.headers["host"] == server.base_url.split("/")[2]


def test_a_redirect_is_an_answer_and_is_not_followed(server: ScriptedServer) -> None:
    server.on("POST /hook", Said(307, {}, {"Location": f"{server.base_url}/secret"}))
    server.on("POST /secret", {"key": "x"})

    assert sent(f"{server.base_url}/hook").status == 307
    assert [asked.path for asked in server.asked] == ["/v1/hook"]


def test_the_name_is_looked_up_once_and_the_connection_goes_to_that_address(server: ScriptedServer) -> None:
    server.on("POST /hook", {})
    answers: list[list[Address]] = [[ip_address("127.0.0.1")], [ip_address("127.0.0.2")]]
    guard = Guard(["hooks.test"], look_up=lambda *_: answers.pop(0))
    port = server.base_url.split(":")[2].split("/")[0]

    sent(f"http://hooks.test:{port}/v1/hook", guard)

    assert len(answers) == 1
    assert server.asked[0].headers["host"] == f"hooks.test:{port}"


def test_a_name_that_turns_to_a_private_address_is_refused_at_the_next_send() -> None:
    answers: list[list[Address]] = [[ip_address("8.8.8.8")], [LOOPBACK]]
    guard = Guard(look_up=lambda *_: answers.pop(0))

    assert guard.admit("https://rebound.example/", timeout_s=1).addresses == [ip_address("8.8.8.8")]
    with pytest.raises(BadRequest, match="not public"):
        guard.admit("https://rebound.example/", timeout_s=1)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost.", "127.0.0.1", "[::1]", "[::ffff:7f00:1]", "0.0.0.0"]
)
def test_this_machine_is_refused_under_each_of_its_names(host: str) -> None:
    with pytest.raises(BadRequest, match="not public"):
        Guard().admit(f"https://{host}/", timeout_s=5)


def test_a_name_without_an_address_is_unresolved() -> None:
    with pytest.raises(Unresolved, match="has no address"):
        look_up("no-such-host.invalid", 443, 30)


def test_a_resolver_that_takes_its_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])

    with pytest.raises(Unresolved, match=r"within 0\.1 s"):
        look_up("example.com", 443, 0.1)
    over.set()


def test_an_address_at_which_nobody_listens_is_followed_by_the_next(server: ScriptedServer) -> None:
    server.on("POST /hook", {})
    closed = ip_address("127.0.0.3")
    guard = Guard(["hooks.test"], look_up=lambda *_: [closed, LOOPBACK])

    assert sent(server.base_url.replace("127.0.0.1", "hooks.test") + "/hook", guard).status == 200


def test_a_receiver_that_never_answers_costs_the_time_that_it_has(silent: str) -> None:
    began = time.monotonic()

    assert failure(silent, timeout_s=0.3) is Code.TIMEOUT
    assert time.monotonic() - began < 5


def test_a_receiver_that_drips_its_answer_costs_no_more() -> None:
    over = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nx-drip: ")
            while not over.wait(0.05):
                try:
                    connection.sendall(b"a")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        code = failure(f"http://127.0.0.1:{listening.getsockname()[1]}/", timeout_s=0.5)
        over.set()
        thread.join()

    assert code is Code.TIMEOUT


def test_of_a_body_without_end_only_its_beginning_is_read(server: ScriptedServer) -> None:
    served: list[int] = []

    def chunks() -> Iterator[bytes]:
        for n in range(100_000):
            served.append(n)
            yield b"x" * 1000

    server.on("POST /hook", Said(200, chunks()))

    answer = sent(f"{server.base_url}/hook")

    assert (answer.status, answer.body) == (200, b"x" * KEPT)
    assert len(served) < 100_000


def test_a_status_counts_though_its_body_breaks_off(server: ScriptedServer) -> None:
    server.on("POST /hook", Said(200, b"half", {"content-length": "400"}))

    assert sent(f"{server.base_url}/hook", timeout_s=3) == Answer(200, b"half")


def test_what_is_no_answer_is_told_by_what_went_wrong(server: ScriptedServer) -> None:
    server.on("POST /gone", HANG_UP)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

    assert failure(f"{server.base_url}/gone") is Code.BROKEN_ANSWER
    assert failure(f"http://127.0.0.1:{port}/") is Code.NO_CONNECTION


@pytest.fixture
def secure(server: ScriptedServer) -> Iterator[str]:
    """The server behind TLS, with a certificate for hooks.test; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "hooks.test.crt", CERTIFICATES / "hooks.test.key")
    server.stop()
    server.start(context)
    server.on("POST /hook", {})
    return server.base_url.split(":")[2].split("/")[0]


def test_tls_is_checked_for_the_name_and_not_for_the_address(secure: str, server: ScriptedServer) -> None:
    trust = ssl.create_default_context(cafile=CERTIFICATES / "hooks.test.crt")
    guard = Guard(["hooks.test", "other.test"], look_up=lambda *_: [LOOPBACK])

    assert sent(f"https://hooks.test:{secure}/v1/hook", guard, trust=trust).status == 200
    assert server.names == ["hooks.test"]

    assert failure(f"https://other.test:{secure}/v1/hook", guard=guard, trust=trust) is Code.TLS_FAILED
    assert failure(f"https://hooks.test:{secure}/v1/hook", guard=guard) is Code.TLS_FAILED
    assert failure(f"https://127.0.0.1:{secure}/v1/hook", trust=trust) is Code.TLS_FAILED
    assert len(server.asked) == 1

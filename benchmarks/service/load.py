"""Closed-loop HTTP clients in a process of their own: one loop, raw sockets, connections that are kept.

It speaks just enough HTTP/1.1 to be a small part of the cost (about 40 µs a request on one core), so that what is
measured is the server. `python -m benchmarks.service.load` reads one `Plan` as JSON and prints one `Told`.
"""

import asyncio
import dataclasses
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Plan:
    """What is sent. Each client sends its requests in turn; a `{n}` in one becomes a number that is used once."""

    port: int
    requests: list[str]
    clients: int
    seconds: float
    #: The status that is right; any other counts as an error.
    expect: int = 200
    #: Each client sends once in so many seconds; 0 sends again as soon as it is answered.
    every_s: float = 0.0
    #: Makes `{n}` differ between runs.
    seed: str = ""


@dataclass
class Told:
    """What came of it; latencies in seconds, sorted."""

    seconds: float = 0.0
    errors: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def quantile(self, q: float) -> float:
        return (
            self.latencies[min(len(self.latencies) - 1, int(q * len(self.latencies)))]
            if self.latencies
            else 0.0
        )


def run(plan: Plan) -> Told:
    """Carries the plan out in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.service.load"],
        input=json.dumps(dataclasses.asdict(plan)),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return Told(**json.loads(done.stdout))


class Client(asyncio.Protocol):
    """One connection: sends, reads one answer by its length, sends again."""

    def __init__(self, crowd: "Crowd", number: int) -> None:
        self.crowd, self.number = crowd, number
        self.inbox = bytearray()
        self.sent_at = self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        every = self.crowd.plan.every_s
        # Clients that ask once a second are spread over it.
        self.due = time.perf_counter() + every * self.number / max(1, self.crowd.plan.clients)
        self._later()

    def _later(self) -> None:
        wait = self.due - time.perf_counter() if self.crowd.plan.every_s else 0.0
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._send)
        else:
            self._send()

    def _send(self) -> None:
        if not self.transport.is_closing():
            # A client of fixed pace is late from when it was due: a slow server must not slow its own measure.
            self.sent_at = max(self.due, self.crowd.began) if self.crowd.plan.every_s else time.perf_counter()
            self.transport.write(self.crowd.next_request(self.number))

    def data_received(self, data: bytes) -> None:
        self.inbox += data
        end = self.inbox.find(b"\r\n\r\n")
        if end < 0:
            return
        size = _length(self.inbox[:end])
        if len(self.inbox) < end + 4 + size:
            return
        self.crowd.note(time.perf_counter() - self.sent_at, int(self.inbox[9:12]))
        del self.inbox[: end + 4 + size]
        if time.perf_counter() < self.crowd.until:
            self.due += self.crowd.plan.every_s
            self._later()
        else:
            self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        if self.sent_at and time.perf_counter() < self.crowd.until:
            self.crowd.told.errors += 1
        self.crowd.left -= 1
        if not self.crowd.left:
            self.crowd.over.set_result(None)


def _length(head: bytearray) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


class Crowd:
    """All clients of a plan, and what they noted."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.told = plan, Told()
        self.left, self._sent = plan.clients, 0
        self._parts = [request.encode().split(b"{n}") for request in plan.requests]

    def next_request(self, client: int) -> bytes:
        self._sent += 1
        parts = self._parts[client % len(self._parts)]
        return f"{self.plan.seed}{self._sent}".encode().join(parts)

    def note(self, seconds: float, status: int) -> None:
        if status == self.plan.expect:
            self.told.latencies.append(seconds)
        else:
            self.told.errors += 1

    async def run(self) -> Told:
        loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = loop.create_future()
        self.began = time.perf_counter()
        self.until = self.began + self.plan.seconds
        for number in range(self.plan.clients):
            await loop.create_connection(lambda n=number: Client(self, n), "127.0.0.1", self.plan.port)
        # A server that stopped answering must not stop the benchmark.
        await asyncio.wait({self.over}, timeout=self.plan.seconds + 15)
        self.told.seconds = time.perf_counter() - self.began
        self.told.errors += self.left
        self.told.latencies.sort()
        return self.told


def main() -> None:
    told = asyncio.run(Crowd(Plan(**json.load(sys.stdin))).run())
    json.dump(dataclasses.asdict(told), sys.stdout)


if __name__ == "__main__":
    main()

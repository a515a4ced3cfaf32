"""Clients that listen to streams of events, on a thread of the benchmark: they only count."""

import selectors
import socket
import threading
from types import TracebackType

from benchmarks.service.sides import Side


class Listening:
    """So many open streams, spread over the jobs, while the block runs; then how many new events they heard."""

    def __init__(self, side: Side, jobs: list[str], streams: int, key: str) -> None:
        self.events = 0
        self._side, self._jobs, self._streams, self._key = side, jobs, streams, key
        self._over = threading.Event()

    def __enter__(self) -> "Listening":
        self._selector = selectors.DefaultSelector()
        for number in range(self._streams):
            self._open(self._jobs[number % len(self._jobs)])
        self._thread = threading.Thread(target=self._count)
        self._thread.start()
        return self

    def _open(self, job_id: str) -> None:
        wire = socket.create_connection(("127.0.0.1", self._side.port), timeout=30)
        seen = self._side.get(job_id, "/events?limit=1").json()["data"][0]["id"]
        wire.sendall(
            f"GET /v1/fine_tuning/jobs/{job_id}/events?stream=true&after={seen} HTTP/1.1\r\nHost: bench\r\n"
            f"Authorization: Bearer {self._key}\r\n\r\n".encode()
        )
        if not wire.recv(65536).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("a stream was refused")
        self._selector.register(wire, selectors.EVENT_READ)

    def _count(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.1):
                wire = key.fileobj
                assert isinstance(wire, socket.socket)
                self.events += wire.recv(65536).count(b"\ndata: ")

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

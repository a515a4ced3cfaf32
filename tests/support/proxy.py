"""A TCP proxy that loses answers: the request arrives, the client never hears of it."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class LossyProxy:
    """Forwards each connection to `port`; of the first `lose`, the answer is thrown away and the connection cut."""

    def __init__(self, port: int, lose: int) -> None:
        self._target, self._lose = port, lose
        self.lost = 0
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._door.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._door.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                loses = self.lost < self._lose
                self.lost += loses
                threading.Thread(target=_pump, args=(client, server), daemon=True).start()
                answer = _swallow if loses else _pump
                threading.Thread(target=answer, args=(server, client), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _cut(source, target)


def _swallow(source: socket.socket, target: socket.socket) -> None:
    """Waits until there is an answer, so that the request was surely done."""
    with contextlib.suppress(OSError):
        source.recv(65536)
    _cut(source, target)


def _cut(*ends: socket.socket) -> None:
    for end in ends:
        # A close alone would wait for the other thread's recv.
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextmanager
def lossy_proxy(port: int, *, lose: int) -> Iterator[LossyProxy]:
    made = LossyProxy(port, lose)
    try:
        yield made
    finally:
        made.close()

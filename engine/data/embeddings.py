"""Media files that lay in the cells of a table, kept beside it on disk: a table may hold more than memory."""

import os
import tempfile
from array import array
from typing import IO


class Embeddings:
    """Files by the order in which they were added. Once `seal`ed any thread may read."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._ends = array("q", [0])

    def add(self, data: bytes) -> int:
        """The place by which `data` is read again; raises OSError if the disk is full."""
        if self._file is None:
            # Nameless: it is gone with the process, however that ends.
            self._file = tempfile.TemporaryFile(prefix="plait-")  # noqa: SIM115
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        return len(self._ends) - 2

    def seal(self) -> None:
        """No more is added."""
        if self._file is not None:
            self._file.flush()

    def read(self, place: int) -> bytes:
        start, end = self._ends[place], self._ends[place + 1]
        parts = []
        while start < end:
            # One call reads at most 2 GiB.
            part = os.pread(self._open.fileno(), end - start, start)
            if not part:
                raise EOFError("the file of embedded media is cut off")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    @property
    def _open(self) -> IO[bytes]:
        assert self._file is not None  # nothing has a place before there is a file
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

"""Pieces of bytes that are more than memory should hold: they go to a nameless file, and each is read again by its place."""

import os
import tempfile
from array import array
from typing import IO

#: What is no more than this never touches the disk.
IN_MEMORY_BYTES = 4 * 2**20


class Spool:
    """Pieces in the order in which they were added. Any thread may read once it is sealed."""

    def __init__(self) -> None:
        self._ends = array("q", [0])
        self._head = bytearray()
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, piece: bytes) -> int:
        """The place by which it is read again; raises OSError if the disk is full."""
        if self._file is None and len(self._head) + len(piece) > IN_MEMORY_BYTES:
            # Nameless: it is gone with the process, however that ends.
            self._file = tempfile.TemporaryFile(prefix="plait-")  # noqa: SIM115
            self._file.write(self._head)
            self._head.clear()
        if self._file is None:
            self._head += piece
        else:
            self._file.write(piece)
        self._ends.append(self._ends[-1] + len(piece))
        return len(self) - 1

    @property
    def size(self) -> int:
        return self._ends[-1]

    def seal(self) -> None:
        """No more is added."""
        if self._file is not None:
            self._file.flush()

    def __getitem__(self, place: int) -> bytes:
        start, end = self._ends[place], self._ends[place + 1]
        if self._file is None:
            return bytes(self._head[start:end])
        parts = []
        while start < end:
            # One call reads at most 2 GiB.
            part = os.pread(self._file.fileno(), end - start, start)
            if not part:
                raise EOFError("the spool is cut off")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Nothing can be read any more."""
        self._ends = array("q", [0])
        self._head.clear()
        if self._file is not None:
            self._file.close()

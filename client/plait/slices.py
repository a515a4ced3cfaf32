"""Parts of a file as they are sent by several threads, and what all of them have sent."""

import hashlib
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

#: Called with the bytes sent or fetched so far, and all of them (0 where unknown).
Progress = Callable[[int, int], None]


class Meter:
    """Adds up what all threads have sent; a thread that is to stop learns it here."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self._total, self._on_progress = total, on_progress
        self._done, self._lock = 0, threading.Lock()
        self.stopped = threading.Event()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._on_progress:
                self._on_progress(self._done, self._total)


class _Stopped(Exception):
    """Another part failed, or the user had enough."""


class Slice(io.RawIOBase):
    """A part of a file as a file, hashed as it is sent. A retry rewinds it."""

    def __init__(self, path: Path, start: int, length: int, meter: Meter) -> None:
        self._file, self._start, self._length, self._meter = path.open("rb"), start, length, meter
        self._at = 0
        self.digest = hashlib.sha256()
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """To the beginning, to send it anew; the end is asked for to learn the length."""
        if whence == os.SEEK_END:
            return self._length + offset
        if offset == 0 and self._at:
            self._meter.add(-self._at)
            self._at, self.digest = 0, hashlib.sha256()
            self._file.seek(self._start)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        if self._meter.stopped.is_set():
            raise _Stopped
        left = self._length - self._at
        chunk = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(chunk)
        self.digest.update(chunk)
        self._meter.add(len(chunk))
        return chunk

    def close(self) -> None:
        self._file.close()
        super().close()

"""An object of a store as a file to read: it is asked for when the first byte is, from where the reader stands."""

import io
import os
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from db.blobs.requests import asking

_BUFFER = 256 * 1024


def open_object(get: Callable[..., dict[str, Any]], key: str, start: int, end: int) -> BinaryIO:
    """The bytes from `start` up to `end`; `get` asks for a `Range` of the object."""
    return cast(BinaryIO, io.BufferedReader(_Object(get, key, start, end), _BUFFER))


class _Object(io.RawIOBase):
    def __init__(self, get: Callable[..., dict[str, Any]], key: str, start: int, end: int) -> None:
        self._get, self._key, self._start, self._end = get, key, start, max(start, end)
        self._at, self._body = start, cast(Any, None)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        if self._at >= self._end:
            return 0
        with asking(self._key):
            if self._body is None:
                self._body = self._get(Range=f"bytes={self._at}-{self._end - 1}")["Body"]
            chunk = self._body.read(min(len(into), self._end - self._at))
        into[: len(chunk)] = chunk
        self._at += len(chunk)
        return len(chunk)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        if base + offset != self._at:
            self._drop()
            self._at = base + offset
        return self._at - self._start

    def tell(self) -> int:
        return self._at - self._start

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

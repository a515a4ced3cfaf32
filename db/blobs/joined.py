"""Several streams read as one, each opened when its turn comes."""

import io
from collections.abc import Callable, Iterable
from typing import BinaryIO


class Joined(io.RawIOBase):
    """Reads the streams that `opens` give, one behind the other; one is open at a time. `watch` sees what is read."""

    def __init__(
        self, opens: Iterable[Callable[[], BinaryIO]], watch: Callable[[bytes], None] | None = None
    ) -> None:
        self._rest, self._watch = iter(opens), watch
        self._current: BinaryIO = io.BytesIO()

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        while not (chunk := self._current.read(len(into))):
            self._current.close()
            following = next(self._rest, None)
            if following is None:
                return 0
            self._current = following()
        if self._watch is not None:
            self._watch(chunk)
        into[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._current.close()
        super().close()

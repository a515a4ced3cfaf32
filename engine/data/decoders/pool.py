"""Decodes in other processes, each item within limits of time and memory. Knows no rows and loads no torch."""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from domain.manifest import Code, ColumnType
from engine.data.decoders import media
from engine.data.decoders.crew import Crew
from engine.data.decoders.decoder import Decoder, OutOfMemory
from engine.data.decoders.framing import Gone, Nonsense, Overdue
from engine.data.limits import Undecodable
from engine.data.media import Media
from engine.data.probe import Probed
from engine.data.values import Reading, read_value

#: Seconds that one item may take. Large ones get more.
SECONDS = 60.0
#: Bytes of address space that one item may take, beside its own bytes.
MEMORY = 4 * 2**30
#: More of them would wait for memory rather than for one another.
AT_MOST = 16
#: It has said its last word: so long it may take to be dead.
_DYING_S = 2.0
_MEDIA = "engine.data.decoders.media:answer"

#: What is said, made of by whoever asked; the rest of it can be read from the decoder until then.
_Take = Callable[[Decoder, dict[str, Any], float], Any]


class Decoders:
    """Some decoder processes, started when they are needed: `read` is a `Read`, `probe` a `Probe`, for any thread.

    An item is Undecodable if it takes more than `seconds` (a second more for each megabyte that it has and for each frame
    that is wanted of it), or more than `memory` bytes, or if its process dies of it; the process is replaced. A process
    has one item at a time. Raises EngineError `decoders_unavailable` if none can be started, or after `close`.
    """

    def __init__(
        self,
        processes: int | None = None,
        *,
        seconds: float = SECONDS,
        memory: int = MEMORY,
        work: str = _MEDIA,
    ) -> None:
        self._seconds, self._memory = seconds, memory
        self._crew = Crew(processes or min(_cores(), AT_MOST), partial(Decoder, work, memory))

    @property
    def pids(self) -> list[int]:
        """Of the processes there are."""
        return self._crew.pids

    def read(self, data: bytes, reading: Reading) -> Any:
        """As `read_value`: the value of a cell's bytes. Raises Undecodable."""
        if reading.kind is ColumnType.TEXT:
            return read_value(data, reading)

        def value(decoder: Decoder, said: dict[str, Any], until: float) -> Any:
            array = media.room(said, reading.kind)
            decoder.line.into(array, until)
            return array

        request = {"do": "read", "reading": vars(reading)}
        return self._done(request, data, self._allowed(data, reading.num_frames or 0), value)

    def probe(self, data: bytes, kind: ColumnType, max_seconds: float | None = None) -> Probed:
        """As `probe_media`: what a medium is, once it is known that it can be read. Raises Undecodable."""
        request = {"do": "probe", "kind": kind, "max_seconds": max_seconds}
        found: Probed = self._done(request, data, self._allowed(data), lambda _, said, __: media.probed(said))
        return found

    def is_silent(self, data: bytes) -> bool:
        """As `probe.is_silent`. What its decoder dies of is not: whoever reads it is told what is wrong."""
        try:
            found: bool = self._done(
                {"do": "listen"}, data, self._allowed(data), lambda _, said, __: media.silence(said)
            )
        except Undecodable:
            return False
        return found

    @property
    def media(self) -> Media:
        """For whoever asks of media: as `IN_PLACE`, in these processes."""
        return Media(self.read, self.probe, self.is_silent)

    def warm(self) -> None:
        """Starts a process and does not wait for it: what is read next need not wait so long."""
        self._crew.warm()

    def close(self) -> None:
        """Ends all processes, whatever they are at. May be called twice."""
        self._crew.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _allowed(self, data: bytes, frames: int = 0) -> float:
        return self._seconds + len(data) / 2**20 + frames

    def _done(self, request: dict[str, Any], data: bytes, seconds: float, take: _Take) -> Any:
        """What `take` makes of the answer. A process that dies may have been broken by another item: then once more."""
        while True:
            decoder = self._crew.take()
            try:
                outcome = _asked(decoder, request, data, time.monotonic() + seconds, take)
            except Overdue as error:
                self._crew.drop(decoder)
                message = (
                    f"decoding it takes more than {seconds:.3g} s; make it smaller or shorter, or write null"
                )
                raise Undecodable(Code.TOO_LARGE, message) from error
            except Gone as error:
                died_of = "" if isinstance(error, Nonsense) else decoder.end(_DYING_S)
                had_others = decoder.answered > 0
                self._crew.drop(decoder)
                if had_others or self._crew.is_closed:
                    continue
                raise self._fatal(error, died_of) from error
            except BaseException:
                # Somewhere between question and answer: nobody could tell the next answer from this one's rest.
                self._crew.drop(decoder)
                raise
            self._crew.give_back(decoder)
            if isinstance(outcome, Undecodable):
                raise outcome
            return outcome

    def _fatal(self, error: Gone, died_of: str) -> Undecodable:
        if isinstance(error, OutOfMemory):
            most = f"{self._memory / 2**30:.3g} GB"
            message = (
                f"decoding it takes more than {most} of memory; make it smaller or shorter, or write null"
            )
            return Undecodable(Code.TOO_LARGE, message)
        if died_of == "SIGKILL":
            message = "its decoder was killed, which a machine does that runs out of memory; make it smaller, or write null"
            return Undecodable(Code.TOO_LARGE, message)
        message = f"its decoder crashed on it ({died_of or error}); write it anew with another program, or write null"
        return Undecodable(Code.UNREADABLE_MEDIA, message)


def _asked(decoder: Decoder, request: dict[str, Any], data: bytes, until: float, take: _Take) -> Any:
    """What `take` makes of the answer, or the refusal. Raises Gone, or Overdue."""
    said = decoder.ask(request, data, until)
    outcome = media.refusal(said) or take(decoder, said, until)
    decoder.answered += 1
    return outcome


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1

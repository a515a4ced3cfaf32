"""Which frames of a film are wanted, and which packets must be decoded for them. Knows times, and no files.

A packet stands for the frame that it brings. Packets come in the order of decoding, which is not that of showing.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Sampling = Literal["uniform", "head"]


@dataclass(frozen=True)
class Shot:
    """One packet: when its frame is shown, and whether decoding can begin with it."""

    stamp: int
    is_key: bool
    #: False for what is decoded only because others need it.
    is_shown: bool = True


@dataclass(frozen=True)
class Schedule:
    """The packets of a track, and the stamp at which its last frame ends."""

    shots: Sequence[Shot]
    end: int
    #: False where a decoder must see everything from the beginning.
    can_jump: bool = True
    #: Numbers of shots that are shown, in the order of showing.
    shown: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        shown = [n for n, shot in enumerate(self.shots) if shot.is_shown]
        object.__setattr__(self, "shown", tuple(sorted(shown, key=lambda n: self.shots[n].stamp)))

    @cached_property
    def stamps(self) -> list[int]:
        return [self.shots[n].stamp for n in self.shown]

    def times(self, count: int, sampling: Sampling) -> list[int]:
        """The stamps at which someone looks: the middles of `count` equal parts, or the first frames."""
        if sampling == "head" or count >= len(self.stamps):
            return self.stamps[:count]
        begin, length = self.stamps[0], max(self.end - self.stamps[0], 1)
        return [begin + (2 * part + 1) * length // (2 * count) for part in range(count)]

    def seen(self, times: Sequence[int]) -> list[int]:
        """The shots on the screen at these times, each once."""
        return [self.shown[place] for place in dict.fromkeys(map(self._place, times))]

    def between(self, time: int, stamp: int) -> int:
        """How many frames lie between the one that is on the screen at this time and the one of this stamp."""
        return abs(self._place(time) - self._place(stamp))

    def _place(self, time: int) -> int:
        return max(bisect_right(self.stamps, time) - 1, 0)

    def ranges(self, shots: Sequence[int]) -> list[range]:
        """The packets that bring these shots, in runs; between two runs the decoder begins anew.

        A decoder jumps forward to the key frame before a shot if it has not come so far yet, and never back. So no packet
        is decoded twice, and jumping is never dearer than going through everything.
        """
        runs: list[range] = []
        for start, last in sorted((self._key_before(shot), shot) for shot in shots):
            if runs and start <= runs[-1].stop:
                runs[-1] = range(runs[-1].start, max(runs[-1].stop, last + 1))
            else:
                runs.append(range(start, last + 1))
        return runs

    def _key_before(self, shot: int) -> int:
        """The last key frame that is decoded and shown no later: what is shown before a key frame needs the one before."""
        if not self.can_jump:
            return 0
        stamp = self.shots[shot].stamp
        at = bisect_right(self._keys, shot) - 1
        while at > 0 and self.shots[self._keys[at]].stamp > stamp:
            at -= 1
        return self._keys[at] if at >= 0 else 0

    @cached_property
    def _keys(self) -> list[int]:
        return [n for n, shot in enumerate(self.shots) if shot.is_key]

"""How a cell's bytes become what an encoder reads. Loads no torch: processes that only decode read it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from domain.manifest import ColumnType
from engine.data import decode
from engine.data.schedule import Sampling


@dataclass(frozen=True)
class Reading:
    """What the decoder of a column must know."""

    kind: ColumnType
    sampling_rate: int | None = None
    max_seconds: float | None = None
    num_frames: int | None = None
    sampling: Sampling = "uniform"
    frame_size: int | None = None


#: A cell's bytes -> its value; raises Undecodable. `read_value` is the plain one.
Read = Callable[[bytes, Reading], Any]


def read_value(data: bytes, reading: Reading) -> Any:
    """A text, or an array: `decode` says of what shape."""
    if reading.kind is ColumnType.IMAGE:
        return decode.image(data)
    if reading.kind is ColumnType.AUDIO:
        assert reading.sampling_rate is not None
        return decode.audio(data, sampling_rate=reading.sampling_rate, max_seconds=reading.max_seconds)
    if reading.kind is ColumnType.VIDEO:
        assert reading.num_frames is not None
        return decode.video(
            data,
            num_frames=reading.num_frames,
            sampling=reading.sampling,
            max_seconds=reading.max_seconds,
            size=reading.frame_size,
        )
    return data.decode()

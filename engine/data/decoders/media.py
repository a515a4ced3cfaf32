"""What a decoder does with media, and what it says about them: the two halves of one small language."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from domain.manifest import Code, ColumnType
from engine.data import limits
from engine.data.decoders.framing import Nonsense
from engine.data.limits import Undecodable
from engine.data.probe import Probed, is_silent, probe_media
from engine.data.values import Reading, read_value

_DTYPES: dict[ColumnType, np.dtype[Any]] = {
    ColumnType.IMAGE: np.dtype(np.uint8),
    ColumnType.AUDIO: np.dtype(np.float32),
    ColumnType.VIDEO: np.dtype(np.uint8),
}
_NUMBERS = ("width", "height", "frames")


def answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], Any]:
    """In the decoder: reads or probes `data`, as it was asked. Raises Undecodable."""
    if request["do"] == "probe":
        found = probe_media(data, ColumnType(request["kind"]), request["max_seconds"])
        return {"found": asdict(found)}, b""
    if request["do"] == "listen":
        return {"silent": is_silent(data)}, b""
    reading = Reading(**{**request["reading"], "kind": ColumnType(request["reading"]["kind"])})
    value = np.ascontiguousarray(read_value(data, reading))
    return {"dtype": value.dtype.str, "shape": value.shape}, value


def refusal(said: Mapping[str, Any]) -> Undecodable | None:
    """Why there is nothing, if that is what was said. Here and below: raises Nonsense for what no decoder of ours says."""
    try:
        if "failed" in said:
            message = f"its decoder failed on it ({_printable(said['failed'])}); write it anew, or write null"
            return Undecodable(Code.UNREADABLE_MEDIA, message)
        if "refused" in said:
            return Undecodable(Code(said["refused"]), _printable(said["message"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Nonsense("no refusal") from error
    return None


def probed(said: Mapping[str, Any]) -> Probed:
    """What a probe found, if it can be true."""
    try:
        found = Probed(**said["found"])
    except (KeyError, TypeError) as error:
        raise Nonsense("no such medium") from error
    numbers = [value for name in _NUMBERS if (value := getattr(found, name)) is not None]
    seconds = found.seconds
    if (
        any(type(number) is not int or number < 0 for number in numbers)
        or not (seconds is None or (type(seconds) in (int, float) and math.isfinite(seconds)))
        or type(found.has_audio) is not bool
    ):
        raise Nonsense("no such medium")
    return found


def silence(said: Mapping[str, Any]) -> bool:
    """Whether a medium was said to have no sound track."""
    if type(found := said.get("silent")) is not bool:
        raise Nonsense("no such medium")
    return found


def room(said: Mapping[str, Any], kind: ColumnType) -> Any:
    """An array for what follows, if it is of the kind that was asked for and no larger than is ever read."""
    shape = said.get("shape")
    if said.get("dtype") != _DTYPES[kind].str or not isinstance(shape, list):
        raise Nonsense("no such array")
    if not all(type(side) is int and side > 0 for side in shape) or not _fits(shape, kind):
        raise Nonsense("no such array")
    if math.prod(shape) * _DTYPES[kind].itemsize != said["bytes"]:
        raise Nonsense("no such array")
    return np.empty(shape, _DTYPES[kind])


def _fits(shape: list[int], kind: ColumnType) -> bool:
    match kind, shape:
        case ColumnType.IMAGE, [height, width, 3]:
            return height * width <= limits.MAX_PIXELS
        case ColumnType.AUDIO, [samples]:
            # Resampling rounds up.
            return samples <= limits.MAX_SAMPLES + 1
        case ColumnType.VIDEO, [frames, height, width, 3]:
            return frames <= limits.MAX_FRAMES and math.prod(shape) <= limits.MAX_FRAME_BYTES
    return False


def _printable(words: Any) -> str:
    """Decoders quote what they choke on."""
    if not isinstance(words, str):
        raise TypeError
    return "".join(c if c.isprintable() else " " for c in words)[:1000]

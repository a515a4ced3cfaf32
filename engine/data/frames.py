"""Decoded frames to arrays: RGB, upright, with square pixels, and no larger than asked for."""

from typing import Any

import numpy as np
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

from domain.manifest import Code
from engine.data import limits
from engine.data.limits import Undecodable

#: Pixels that are said to be more oblong than this are a broken header's.
_MOST_OBLONG = 10


def shape(stream: Any, size: int | None) -> tuple[int, int]:
    """Width and height before turning: pixels made square, the shorter side no longer than `size`."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width or not height:
        raise Undecodable(Code.UNREADABLE_MEDIA, "the film does not say how large its frames are; replace it")
    limits.check_pixels(width, height, "a frame of the film")
    aspect = stream.sample_aspect_ratio or 1
    if 1 / _MOST_OBLONG <= aspect <= _MOST_OBLONG:
        width = max(1, round(width * aspect))
    limits.check_pixels(width, height, "a frame of the film")
    shorter = min(width, height)
    if size is not None and size < shorter:
        width, height = (max(1, round(side * size / shorter)) for side in (width, height))
    return width, height


def check_bytes(count: int, width: int, height: int) -> None:
    if count * width * height * 3 > limits.MAX_FRAME_BYTES:
        message = (
            f"{count} frames of {width}x{height} are too much at once; ask for fewer, or for a smaller size"
        )
        raise Undecodable(Code.TOO_LARGE, message)


def pixels(frame: Any, width: int, height: int) -> NDArray[np.uint8]:
    """`[height, width, 3]`, turned as the film says; transparency lies on white."""
    has_alpha = any(part.is_alpha for part in frame.format.components) or frame.format.has_palette
    layout = "rgba" if has_alpha else "rgb24"
    plain = frame.reformat(width, height, layout, threads=1).to_ndarray()
    return turned(_on_white(plain) if has_alpha else plain, matrix_of(frame))


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed = (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def matrix_of(frame: Any) -> tuple[int, ...]:
    """The four numbers that say how a frame is turned; none if it stands upright."""
    side = frame.side_data.get(Type.DISPLAYMATRIX)
    if side is None:
        return ()
    a, b, _, c, d, *_ = np.frombuffer(side, np.int32).tolist()
    return a, b, c, d


def lies_on_its_side(matrix: tuple[int, ...]) -> bool:
    return bool(matrix) and matrix[0] == matrix[3] == 0


def turned(picture: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """Quarter turns and mirrors; a picture at another angle stays as it is."""
    if not matrix:
        return picture
    a, b, c, d = matrix
    if lies_on_its_side(matrix):
        picture, across, down = picture.transpose(1, 0, 2), c, b
    elif b == c == 0:
        across, down = a, d
    else:
        return picture
    return picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]

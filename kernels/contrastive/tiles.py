"""How the matrix of logits is cut into tiles that are in memory one at a time. Knows no maths of a loss."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

from torch import Tensor

from kernels.contrastive.products import product

#: Sides of tiles are multiples of it where the matrix is large: whole blocks for the matrix products.
_ALIGNED = 128


@dataclass(frozen=True)
class Tile:
    """A rectangle of the logits: image rows by text rows."""

    first_row: int
    rows: int
    first_column: int
    columns: int
    #: Where it starts in a flat buffer that holds every tile, one after the other.
    start: int

    @property
    def cells(self) -> int:
        return self.rows * self.columns

    def of_image(self, image: Tensor) -> Tensor:
        return image[self.first_row : self.first_row + self.rows]

    def of_texts(self, texts: Tensor) -> Tensor:
        return texts[self.first_column : self.first_column + self.columns]

    def shift(self, offset: int) -> int:
        """Cell [i, i + shift] is a matching pair, where image row 0 matches text row `offset`."""
        return self.first_row + offset - self.first_column


def strips(rows: int, columns: int, chunk_bytes: int, itemsize: int) -> list[list[Tile]]:
    """Tiles of at most `chunk_bytes` (but one cell at least) that cover [rows, columns], a list for each band of rows.

    About square: a tile's gradient products are then [side, D], large enough to fill a GPU, and each
    row of features is read `rows / side` times only. All tiles but the last of a band are equally wide.
    """
    if rows == 0 or columns == 0:
        return []
    height, width = _sides(rows, columns, max(chunk_bytes // itemsize, 1))
    return list(_cut(rows, columns, height, width))


def keeps(rows: int, columns: int, budget: int, itemsize: int) -> bool:
    """Whether all logits fit in `budget` bytes."""
    return rows * columns * itemsize <= budget


def largest(bands: list[list[Tile]]) -> int:
    """The cells of the largest tile."""
    return max((tile.cells for band in bands for tile in band), default=0)


def dots(image: Tensor, texts: Tensor, tile: Tile, into: Tensor) -> Tensor:
    """The dot products of a tile, [rows, columns], made in the flat `into`."""
    made = into[: tile.cells].view(tile.rows, tile.columns)
    product(tile.of_image(image), tile.of_texts(texts).T, out=made)
    return made


def kept(logits: Tensor, tile: Tile) -> Tensor:
    """A tile out of the flat buffer that holds all of them."""
    return logits[tile.start : tile.start + tile.cells].view(tile.rows, tile.columns)


def _cut(rows: int, columns: int, height: int, width: int) -> Iterator[list[Tile]]:
    start = 0
    for first_row in range(0, rows, height):
        band = []
        for first_column in range(0, columns, width):
            tall, wide = min(height, rows - first_row), min(width, columns - first_column)
            band.append(Tile(first_row, tall, first_column, wide, start))
            start += tall * wide
        yield band


def _sides(rows: int, columns: int, cells: int) -> tuple[int, int]:
    side = isqrt(cells)
    if rows <= side:
        return rows, _even(columns, max(cells // rows, 1))
    if columns <= side:
        return _even(rows, max(cells // columns, 1)), columns
    return _even(rows, side), _even(columns, side)


def _even(length: int, most: int) -> int:
    """The side of as few equal parts of `length` as can be, none longer than `most`."""
    count = -(-length // most)
    part = -(-length // count)
    aligned = -(-part // _ALIGNED) * _ALIGNED
    return min(aligned if aligned <= most else part, length)

"""Token sequences: how those of many rows lie together, and how they are made shorter. Knows no encoder and no fusion."""

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional

from kernels import masked_token_pool

#: Of a cell, where its tower does not say: a second of sound is 50 of Whisper's, a picture 49 of most encoders'.
MAX_TOKENS = 64


@dataclass(frozen=True)
class Tokens:
    """One tower's token sequences: `values` [rows, length, width], of which the first `lengths` [rows] are a row's.

    Whatever lies behind them is not read.
    """

    values: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: list[int] | slice) -> "Tokens":
        return Tokens(self.values[rows], self.lengths[rows])

    @property
    def device(self) -> torch.device:
        return self.values.device


def in_rows(vectors: Tensor, counts: Tensor, into: Tensor, rows: int) -> Tokens:
    """`vectors` [all tokens, width], of which each of the rows `into` has its next `counts`; other rows have none."""
    device = vectors.device
    counts, into = counts.to(device), into.to(device)
    longest = max(int(counts.max()) if len(counts) else 0, 1)
    # Under autocast an encoder's vectors may be narrower than what is made of them.
    values = torch.zeros(rows, longest, vectors.shape[1], device=device)
    of_row, place = _places(counts)
    values = values.index_put((into[of_row], place), vectors.to(values.dtype))
    return Tokens(values, torch.zeros(rows, dtype=torch.int64, device=device).index_copy(0, into, counts))


def of_mask(hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """hidden [rows, length, width] less what `mask` [rows, length] says is padding -> [all tokens, width], [rows].

    A row that is all padding keeps its first position.
    """
    live = mask.bool()
    first = torch.arange(live.shape[1], device=live.device) == 0
    live = live | (first & ~live.any(1, keepdim=True))
    return hidden[live], live.sum(1)


def of_all(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """hidden [rows, length, width] or, of a convolutional network, [rows, width, ...] -> as `of_mask`."""
    hidden = hidden if hidden.dim() == 3 else hidden.flatten(2).transpose(1, 2)
    rows, length, _ = hidden.shape
    return hidden.flatten(0, 1), torch.full((rows,), length, device=hidden.device)


def shrunk(vectors: Tensor, counts: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """At most `most` tokens a row: of a longer one the means of so many parts, as equal as can be, of neighbours."""
    counts = counts.to(vectors.device)
    if not len(counts) or int(counts.max()) <= most:
        return vectors, counts
    parts = counts.clamp(max=most)
    of_row, part = _places(parts)
    begins = (counts.cumsum(0) - counts)[of_row] + part * counts[of_row] // parts[of_row]
    ends = functional.pad(begins, (0, 1), value=len(vectors))
    return masked_token_pool(vectors, cu_seqlens=ends), parts


def shrunk_grid(grid: Tensor, most: int) -> Tensor:
    """[rows, width, h, w] with at most `most` places, if any are allowed: square patches of neighbours are averaged."""
    high, wide = grid.shape[2:]
    side = 1
    while side < max(high, wide) and -(-high // side) * -(-wide // side) > most:
        side += 1
    return grid if side == 1 else functional.avg_pool2d(grid, side, ceil_mode=True, count_include_pad=False)


def of_patches(hidden: Tensor, grid: tuple[int, int] | None, most: int) -> tuple[Tensor, Tensor]:
    """A vision transformer's [rows, length, width], the last h * w of which are patches -> as `of_mask`, made shorter.

    What comes before the patches (a class token, registers) stays as it is. Without a `grid` a square one is looked for.
    """
    length = hidden.shape[1]
    high, wide = grid or (isqrt(length), isqrt(length))
    if high * wide > length or (grid is None and high * wide < length - 1):
        return of_all(hidden)
    before, patches = hidden.split([length - high * wide, high * wide], dim=1)
    smaller = shrunk_grid(patches.transpose(1, 2).unflatten(2, (high, wide)), most - before.shape[1])
    return of_all(torch.cat([before, smaller.flatten(2).transpose(1, 2)], dim=1))


def summed_up(counts: Tensor, cells: Tensor) -> Tensor:
    """How many tokens each cell has whose next `cells` parts have `counts` of them."""
    ends = functional.pad(counts.cumsum(0), (1, 0))[functional.pad(cells.to(counts.device).cumsum(0), (1, 0))]
    return ends.diff()


def _places(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Of each token, one row's behind the other's: its row, and its place there."""
    of_row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    begins = counts.cumsum(0) - counts
    return of_row, torch.arange(len(of_row), device=counts.device) - begins[of_row]

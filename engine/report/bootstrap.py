"""How sure a number is that was measured on few rows: percentile bootstrap over rows (Efron 1979)."""

from collections.abc import Callable

import torch
from torch import Tensor

RESAMPLES = 1000
#: Fewer rows than these say too little of the rows that were not drawn.
FEWEST_ROWS = 10
#: Of the interval: 95 %.
_TAILS = (0.025, 0.975)
#: Draws at once: 32 MB.
_AT_ONCE = 4_000_000


def resamples(rows: int, heed: Callable[[], None]) -> Tensor:
    """How often each row is drawn: [RESAMPLES, rows], the same in every run. `heed` raises when asked to stop."""
    generator = torch.Generator().manual_seed(0)
    size = max(1, _AT_ONCE // rows)
    pieces = []
    for start in range(0, RESAMPLES, size):
        heed()
        count = min(size, RESAMPLES - start)
        draws = torch.randint(rows, (count, rows), generator=generator)
        drawn = torch.zeros(count, rows, dtype=torch.double)
        pieces.append(drawn.scatter_add_(1, draws, torch.ones_like(drawn)))
    return torch.cat(pieces)


def interval(values: Tensor) -> list[float]:
    """The middle 95 % of the resamples' values, [low, high]."""
    low, high = values.double().quantile(torch.tensor(_TAILS, dtype=torch.double)).tolist()
    return [low, high]

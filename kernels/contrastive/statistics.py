"""Logarithms of sums of exponentials as pairs [2, ...]: the greatest logit, and the log of the sum relative to it.

As one number, a logit of 100 would leave 4e-6 to the rest; a converged model's loss is smaller than that.
"""

import torch
from torch import Tensor


def joined(pairs: Tensor) -> Tensor:
    """The pair of the union, [2, length], of pairs [parts, 2, length]."""
    top = pairs[:, 0].amax(0)
    total = (pairs[:, 1] + pairs[:, 0] - top).exp().sum(0)
    return torch.stack((top, total.log()))


def clip(row: Tensor, column: Tensor, diagonal: Tensor) -> Tensor:
    """The mean loss of matching pairs: of their row pairs [2, n], column pairs [2, n] and logits [n]; 0 of none."""
    sides = torch.stack((row, column))
    losses = sides[:, 0] - diagonal + sides[:, 1]
    return losses.sum() / (2 * max(diagonal.shape[0], 1))

"""The contrastive losses over a batch of rows with any number of columns. Knows no encoder and no file.

Of a batch's outputs [rows, columns, dim], vectors of length 1, and its keys [rows, columns], which name what each cell
holds and are 0 where it holds nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.models.joint import JointSpace
from engine.train.contents import MISSING
from kernels import clip_loss, siglip_loss


@dataclass(frozen=True)
class Contrast:
    """The loss of a batch: the mean over all pairs of columns that any row has both of.

    A row without one of a pair takes no part in it. Rows with equal contents in one of the two are no negatives of one
    another. `rows` is the size of the batches that training sees: a larger one would have more negatives, and another
    loss.
    """

    space: JointSpace
    rows: int

    def __call__(self, outputs: Tensor, keys: Tensor) -> Tensor:
        found = [self._of_pair(a, b, ka, kb) for a, b, ka, kb in _pairs(outputs, keys)]
        # A batch without any pair costs nothing, and still has a gradient: zero.
        return torch.stack(found).mean() if found else outputs.sum() * 0.0

    def over(self, outputs: Tensor, keys: Tensor) -> Tensor:
        """The mean over all rows, batch by batch in their order, on the CPU."""
        pieces = zip(outputs.split(self.rows), keys.split(self.rows), strict=True)
        device = self.space.log_scale.device
        with torch.no_grad():
            found = [(self(x.to(device), k.to(device)).cpu(), len(k)) for x, k in pieces]
        return torch.stack([loss * count for loss, count in found]).sum() / len(keys)

    def _of_pair(self, a: Tensor, b: Tensor, keys_a: Tensor, keys_b: Tensor) -> Tensor:
        scale, bias = self.space.scale, self.space.bias
        if len(keys_a.unique()) == len(keys_a) and len(keys_b.unique()) == len(keys_b):
            return clip_loss(a, b, scale) if bias is None else siglip_loss(a, b, scale, bias)
        alike = (keys_a[:, None] == keys_a[None]) | (keys_b[:, None] == keys_b[None])
        alike.fill_diagonal_(False)
        logits = scale * (a @ b.T)
        return _clip(logits, alike) if bias is None else _siglip(logits + bias, alike)


def _pairs(outputs: Tensor, keys: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The rows that have both of a pair of columns, pair by pair: their vectors and keys."""
    present = keys != MISSING
    for i, j in combinations(range(keys.shape[1]), 2):
        both = (present[:, i] & present[:, j]).nonzero().flatten()
        if len(both):
            yield outputs[both, i], outputs[both, j], keys[both, i], keys[both, j]


def _clip(logits: Tensor, alike: Tensor) -> Tensor:
    """`clip_loss` in which `alike` pairs are in no sum. [rows, rows]"""
    kept = logits.masked_fill(alike, -torch.inf)
    targets = torch.arange(len(kept), device=kept.device)
    return (F.cross_entropy(kept, targets) + F.cross_entropy(kept.T, targets)) / 2


def _siglip(logits: Tensor, alike: Tensor) -> Tensor:
    """`siglip_loss` in which `alike` pairs are in no sum."""
    signs = 2.0 * torch.eye(len(logits), device=logits.device) - 1.0
    return F.softplus(-signs * logits).masked_fill(alike, 0.0).sum() / len(logits)

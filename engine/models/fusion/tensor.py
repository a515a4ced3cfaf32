"""Fusions by products: every interaction of the towers' entries, as one tensor, or as a few ranks of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from domain.errors import EngineError
from engine.models.fusion.base import Fusion, brought, into_one_space, stood_in, tokens, wide
from kernels import lowrank_fusion

#: Interactions that a whole tensor may have: the linear layer behind it has a weight for each and each output.
MOST_INTERACTIONS = 8192
#: Entries of each tower that take part in it, at most (the authors have 32) and at least.
_WIDEST, _NARROWEST = 32, 2


class WholeTensor(Fusion):
    """Tensor fusion (Zadeh et al. 2017, arXiv:1707.07250): the outer product of all [h, 1], through a linear layer.

    Each tower is brought to so few entries that there are at most MOST_INTERACTIONS. Of a missing tower only the 1
    is left, so that the interactions of the others stay. Raises EngineError for more than eight towers.
    """

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float) -> None:
        super().__init__(modality_dropout)
        entries = _entries(len(widths))
        self.towers = into_one_space(widths, entries)
        self.out = nn.Linear((entries + 1) ** len(widths), dim)
        self.norm = nn.LayerNorm(dim)
        self.missing = tokens(len(widths), dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = self.as_trained(present)
        product = present.new_ones(len(present), 1, dtype=torch.float32)
        for place, x in enumerate(brought(self.towers, pooled, present)):
            there = torch.where(present[:, place : place + 1], x, 0.0)
            with_one = functional.pad(there, (0, 1), value=1.0)
            product = (product.unsqueeze(2) * with_one.unsqueeze(1)).flatten(1)
        fused = functional.gelu(self.norm(wide(self.out(product))))
        return fused + stood_in(present, self.missing)


def _entries(towers: int) -> int:
    entries = min(_WIDEST, int(MOST_INTERACTIONS ** (1 / towers) + 1e-9) - 1)
    if entries < _NARROWEST:
        message = f"a tensor fusion takes at most 8 towers, and there are {towers}; use low_rank_tensor"
        raise EngineError("invalid_spec", message, param="multimodal.fusion.type")
    return entries


def _factor(rank: int, dim: int) -> nn.Parameter:
    """Of a width that keeps products of any number of towers of order 1; a tower that is missing multiplies by 1."""
    factor = torch.randn(rank, dim + 1, dim) * dim**-0.5
    factor[:, -1] = 1.0
    return nn.Parameter(factor)


class LowRankTensor(Fusion):
    """Low-rank multimodal fusion (Liu et al. 2018, arXiv:1806.00064): the same tensor as a sum of `rank` products.

    Its cost grows with the number of towers, not with their product. Of a missing tower only the 1 is left.
    """

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float, rank: int = 4) -> None:
        super().__init__(modality_dropout)
        self.towers = into_one_space(widths, dim)
        self.factors = nn.ParameterList(_factor(rank, dim) for _ in widths)
        self.rank_weight = nn.Parameter(torch.ones(rank))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.norm = nn.LayerNorm(dim)
        self.missing = tokens(len(widths), dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = self.as_trained(present)
        xs = brought(self.towers, pooled, present)
        product = lowrank_fusion(xs, list(self.factors), self.rank_weight, self.bias, mask=present)
        return functional.gelu(self.norm(wide(product))) + stood_in(present, self.missing)

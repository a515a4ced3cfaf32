"""All towers' vectors side by side, through one linear layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.models.fusion.base import Fusion, clean
from kernels import masked_projection


class Concat(Fusion):
    """One linear layer over all towers side by side, without ever building that row.

    Its last inputs say what is missing: their weight columns are the learned tokens.
    """

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float) -> None:
        super().__init__(modality_dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        whole = nn.Linear(sum(widths) + len(widths), dim)
        self.weight, self.bias = whole.weight, whole.bias
        self.norm = nn.LayerNorm(dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = self.as_trained(present)
        xs = [norm(x) for norm, x in zip(self.norms, clean(pooled, present), strict=True)]
        there = present.to(self.weight.dtype)
        return masked_projection(
            [*xs, 1 - there],
            self.weight,
            self.bias,
            mask=torch.cat([present, present.new_ones(len(present), 1)], dim=1),
            combine="concat",
            norm_weight=self.norm.weight,
            norm_bias=self.norm.bias,
            eps=self.norm.eps,
            activation="gelu",
        )

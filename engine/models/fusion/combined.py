"""Towers brought to one space and added up there, or their maximum taken, or their mean."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from engine.models.fusion.base import Fusion, brought, into_one_space, stood_in, tokens
from kernels import combine_modalities


class Combined(Fusion):
    """Each tower is brought to `dim` for itself, and `mode` makes one of them. A missing one has its token."""

    def __init__(
        self, mode: Literal["mean", "sum", "max"], widths: Sequence[int], dim: int, modality_dropout: float
    ) -> None:
        super().__init__(modality_dropout)
        self.mode = mode
        self.towers = into_one_space(widths, dim)
        self.missing = tokens(len(widths), dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = self.as_trained(present)
        return self.combined(brought(self.towers, pooled, present), present)

    def combined(self, xs: Sequence[Tensor], present: Tensor) -> Tensor:
        """Of towers that are in one space already."""
        if self.mode == "max":
            # Of the present towers alone: a token's entries must not outdo them, so it is added instead.
            most = combine_modalities(xs, mask=present, mode="max")
            return most + stood_in(present, self.missing)
        # A token takes the missing tower's place: it is one more that is present where the tower is not.
        standing_in = [token.expand_as(xs[0]) for token in self.missing]
        return combine_modalities(
            [*xs, *standing_in], mask=torch.cat([present, ~present], dim=1), mode=self.mode
        )

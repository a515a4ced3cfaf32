"""One space for all columns: what a contrastive model is between its encoders and its answers. Knows no loss."""

import math
from collections.abc import Collection, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.fusion import Fusion
from engine.models.fusion.base import clean, wide

#: Where the learned factor of similarities begins: CLIP's (Radford et al. 2021) and SigLIP's (Zhai et al. 2023).
CLIP_SCALE, SIGLIP_SCALE = 1 / 0.07, 10.0
#: SigLIP's bias: most pairs of a batch are none.
SIGLIP_BIAS = -10.0
#: CLIP's: a larger factor makes training unstable.
LARGEST_SCALE = 100.0


#: Of the entries of what is projected, in training: a thousand pairs are else learned by heart.
DROPOUT = 0.5
#: Of the mean one.
LEAST_DEVIATION = 0.05


class JointSpace(Fusion):
    """Each column's vector projected to `dim` and to length 1; learned factor and bias of their products besides.

    A projection is what the other fusions bring a tower into their space by, less the activation, so that these can
    start from it.
    """

    def __init__(self, widths: Sequence[int], dim: int, *, has_bias: bool) -> None:
        super().__init__(modality_dropout=0.0)
        self.towers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim), nn.LayerNorm(dim)) for width in widths
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(SIGLIP_SCALE if has_bias else CLIP_SCALE)))
        self.bias = nn.Parameter(torch.tensor(SIGLIP_BIAS)) if has_bias else None

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        """[rows, columns, dim], of length 1; zeros where a column is missing."""
        made = [
            tower[1:](F.dropout(tower[0](x), DROPOUT, self.training))
            for tower, x in zip(self._projections, clean(pooled, present), strict=True)
        ]
        units = torch.stack([F.normalize(wide(x), dim=1) for x in made], dim=1)
        return torch.where(present.unsqueeze(2), units, 0.0)

    def learn(self, pooled: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor | None]:
        # After a step, as in CLIP: a factor that is held down in the forward would have no gradient to come back by.
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))
        return self(pooled, present), None

    @torch.no_grad()
    def standardise(
        self, pooled: Sequence[Tensor], present: Tensor, but: Collection[int] = frozenset()
    ) -> None:
        """Before training: of what is projected, each entry gets mean 0 and deviation 1 over these rows; not of the columns
        at the places `but`.

        Encoders' entries differ in size a hundredfold, and those that all rows share would drown the others.
        """
        for place, (tower, x) in enumerate(zip(self._projections, pooled, strict=True)):
            there = x[present[:, place]].float()
            if len(there) < 2 or place in but:
                continue
            norm = cast(nn.LayerNorm, tower[0])
            normed = F.layer_norm(there, there.shape[1:], eps=norm.eps)
            deviation, mean = torch.std_mean(normed, 0)
            # What hardly ever differs is noise, and is not made as large as all else.
            deviation = deviation.clamp(min=LEAST_DEVIATION * deviation.mean().clamp(min=norm.eps))
            norm.weight.copy_(1 / deviation)
            norm.bias.copy_(-mean / deviation)

    @property
    def _projections(self) -> list[nn.Sequential]:
        return [cast(nn.Sequential, tower) for tower in self.towers]

    @property
    def scale(self) -> Tensor:
        """The factor itself, of shape []."""
        return self.log_scale.exp()


def fused(units: Tensor) -> Tensor:
    """One vector a row: the mean of its present columns, of length 1. [rows, columns, dim] -> [rows, dim]"""
    return F.normalize(units.sum(1), dim=1)

"""What every late fusion shares: missing modalities, their tokens, and modality dropout. Knows no encoder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """The towers' vectors and what is missing -> one vector a row.

    `forward(pooled, present)`: `pooled` are the towers' vectors, [rows, width] each, `present` is [rows, towers],
    bool; the answer is [rows, dim]. What lies in a missing slot, NaN too, reaches neither output nor gradient.
    """

    #: Whether it is given the towers' token sequences, `Tokens`, and not one vector of each.
    reads_tokens = False

    def __init__(self, modality_dropout: float) -> None:
        super().__init__()
        self.modality_dropout = modality_dropout

    def learn(self, pooled: Sequence[Any], present: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `forward`, and what training is to make small besides the task's loss, a scalar, if anything."""
        return self(pooled, present), None

    def as_trained(self, present: Tensor) -> Tensor:
        """Slots are hidden in training only, and only where another one is left."""
        if not self.training or self.modality_dropout == 0 or present.shape[1] == 1:
            return present
        return drop_modalities(present, self.modality_dropout)


def drop_modalities(present: Tensor, rate: float) -> Tensor:
    """`present` with some slots hidden, never a row's last one. [rows, towers], bool."""
    draws = torch.rand(present.shape, device=present.device)
    kept = draws >= rate
    lucky = torch.where(present, draws, -1.0).argmax(1, keepdim=True)
    return present & kept.scatter(1, lucky, torch.ones_like(lucky, dtype=torch.bool))


def clean(pooled: Sequence[Tensor], present: Tensor) -> list[Tensor]:
    """Zeros in missing slots: what lay there (NaN, too) reaches neither the output nor a gradient."""
    return [torch.where(present[:, i : i + 1], x, 0.0) for i, x in enumerate(pooled)]


def into_one_space(widths: Sequence[int], dim: int) -> nn.ModuleList:
    """For each tower what brings its vector to `dim`."""
    return nn.ModuleList(
        nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim), nn.LayerNorm(dim), nn.GELU())
        for width in widths
    )


def brought(towers: nn.ModuleList, pooled: Sequence[Tensor], present: Tensor) -> list[Tensor]:
    """Each tower's vector in the common space, [rows, dim], in float32 or better; of a missing one anything finite."""
    return [wide(tower(x)) for tower, x in zip(towers, clean(pooled, present), strict=True)]


def tokens(towers: int, dim: int) -> nn.Parameter:
    """What is learned to stand in for each tower where it is missing. [towers, dim]"""
    return nn.Parameter(torch.randn(towers, dim) * 0.02)


def stood_in(present: Tensor, missing: Tensor) -> Tensor:
    """The sum of the missing towers' tokens. [rows, dim]"""
    return torch.where(present.unsqueeze(2), 0.0, missing).sum(1)


def in_their_places(xs: Sequence[Tensor], present: Tensor, missing: Tensor) -> Tensor:
    """All towers of a row, the missing ones' tokens in their places. [rows, towers, dim]"""
    return torch.where(present.unsqueeze(2), torch.stack(list(xs), dim=1), missing)


def wide(x: Tensor) -> Tensor:
    """Wide enough to be added up: towers may run in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

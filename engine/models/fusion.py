"""Late fusion: the towers' vectors and what is missing become one vector a row. Knows no encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kernels import masked_projection


def drop_modalities(present: Tensor, rate: float) -> Tensor:
    """`present` with some slots hidden, never a row's last one. [rows, towers], bool."""
    draws = torch.rand(present.shape, device=present.device)
    kept = draws >= rate
    lucky = torch.where(present, draws, -1.0).argmax(1, keepdim=True)
    return present & kept.scatter(1, lucky, torch.ones_like(lucky, dtype=torch.bool))


def _clean(pooled: Sequence[Tensor], present: Tensor) -> list[Tensor]:
    """Zeros in missing slots: what lay there (NaN, too) reaches neither the output nor a gradient."""
    return [torch.where(present[:, i : i + 1], x, 0.0) for i, x in enumerate(pooled)]


class Concat(nn.Module):
    """One linear layer over all towers side by side, without ever building that row.

    Its last inputs say what is missing: their weight columns are the learned tokens.
    """

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float) -> None:
        super().__init__()
        self.modality_dropout = modality_dropout
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        whole = nn.Linear(sum(widths) + len(widths), dim)
        self.weight, self.bias = whole.weight, whole.bias
        self.norm = nn.LayerNorm(dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = _as_trained(self, present)
        xs = [norm(x) for norm, x in zip(self.norms, _clean(pooled, present), strict=True)]
        there = present.to(self.weight.dtype)
        return masked_projection(
            [*xs, 1 - there],
            self.weight,
            self.bias,
            mask=torch.cat([there, there.new_ones(len(there), 1)], dim=1),
            combine="concat",
            norm_weight=self.norm.weight,
            norm_bias=self.norm.bias,
            eps=self.norm.eps,
            activation="gelu",
        )


class Mean(nn.Module):
    """Each tower is brought to `dim` for itself; a missing one is stood in for by its token."""

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float) -> None:
        super().__init__()
        self.modality_dropout = modality_dropout
        self.towers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim), nn.LayerNorm(dim), nn.GELU())
            for width in widths
        )
        self.missing = nn.Parameter(torch.randn(len(widths), dim) * 0.02)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = _as_trained(self, present)
        projected = [tower(x) for tower, x in zip(self.towers, _clean(pooled, present), strict=True)]
        filled = [torch.where(present[:, i : i + 1], x, self.missing[i]) for i, x in enumerate(projected)]
        return torch.stack(filled).mean(0)


def _as_trained(fusion: Concat | Mean, present: Tensor) -> Tensor:
    """Slots are hidden in training only, and only where another one is left."""
    if not fusion.training or fusion.modality_dropout == 0 or present.shape[1] == 1:
        return present
    return drop_modalities(present, fusion.modality_dropout)


FUSIONS: dict[str, type[Concat] | type[Mean]] = {"concat": Concat, "mean": Mean}

"""Late fusion: the towers' vectors and what is missing become one vector a row. Knows no encoder."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from kernels import combine_modalities, masked_projection


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
            mask=torch.cat([present, present.new_ones(len(present), 1)], dim=1),
            combine="concat",
            norm_weight=self.norm.weight,
            norm_bias=self.norm.bias,
            eps=self.norm.eps,
            activation="gelu",
        )


class Combined(nn.Module):
    """Each tower is brought to `dim` for itself, and `mode` makes one of them. A missing one has its token."""

    def __init__(
        self, mode: Literal["mean", "sum", "max"], widths: Sequence[int], dim: int, modality_dropout: float
    ) -> None:
        super().__init__()
        self.modality_dropout = modality_dropout
        self.mode = mode
        self.towers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim), nn.LayerNorm(dim), nn.GELU())
            for width in widths
        )
        self.missing = _tokens(len(widths), dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = _as_trained(self, present)
        brought = [_wide(tower(x)) for tower, x in zip(self.towers, _clean(pooled, present), strict=True)]
        if self.mode == "max":
            # Of the present towers alone: a token's entries must not outdo them, so it is added instead.
            most = combine_modalities(brought, mask=present, mode="max")
            return most + _stood_in(present, self.missing)
        # A token takes the missing tower's place: it is one more that is present where the tower is not.
        tokens = [token.expand_as(brought[0]) for token in self.missing]
        return combine_modalities(
            [*brought, *tokens], mask=torch.cat([present, ~present], dim=1), mode=self.mode
        )


class Gated(nn.Module):
    """A gated multimodal unit (Arevalo et al. 2017, arXiv:1702.01992): each row weighs its own towers.

    As in the paper a tower's gate is a function of all towers' vectors. Here it is one number a tower and not
    one an entry, and the gates of those that are present add up to 1: so they can be read as weights.
    """

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float) -> None:
        super().__init__()
        self.modality_dropout = modality_dropout
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.LayerNorm(dim), nn.GELU()) for width in widths
        )
        # Its last inputs say what is missing, as in a concat fusion.
        self.gate = nn.Linear(sum(widths) + len(widths), len(widths))
        self.missing = _tokens(len(widths), dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = _as_trained(self, present)
        normed = self._normed(pooled, present)
        brought = [_wide(tower(x)) for tower, x in zip(self.towers, normed, strict=True)]
        scores = self._scores(normed, present)
        fused = combine_modalities(brought, mask=present, mode="gated", gates=scores)
        return fused + _stood_in(present, self.missing)

    def gates(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        """What each tower counts for: [rows, towers], 0 if missing, adding up to 1 unless all are."""
        scores = _wide(self._scores(self._normed(pooled, present), present))
        # A finite number: of a row without any tower the softmax must be a number too, and be masked.
        masked = scores.masked_fill(~present, torch.finfo(torch.float32).min)
        return torch.where(present, masked.softmax(1), 0.0)

    def _normed(self, pooled: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        return [norm(x) for norm, x in zip(self.norms, _clean(pooled, present), strict=True)]

    def _scores(self, normed: Sequence[Tensor], present: Tensor) -> Tensor:
        """The logits of the gates, [rows, towers]."""
        there = present.to(self.gate.weight.dtype)
        return masked_projection(
            [*normed, 1 - there],
            self.gate.weight,
            self.gate.bias,
            mask=torch.cat([present, present.new_ones(len(present), 1)], dim=1),
        )


def _tokens(towers: int, dim: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(towers, dim) * 0.02)


def _stood_in(present: Tensor, tokens: Tensor) -> Tensor:
    """The sum of the missing towers' tokens. [rows, dim]"""
    return torch.where(present.unsqueeze(2), 0.0, tokens).sum(1)


def _wide(x: Tensor) -> Tensor:
    """Wide enough to be added up: towers may run in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _as_trained(fusion: Concat | Combined | Gated, present: Tensor) -> Tensor:
    """Slots are hidden in training only, and only where another one is left."""
    if not fusion.training or fusion.modality_dropout == 0 or present.shape[1] == 1:
        return present
    return drop_modalities(present, fusion.modality_dropout)


#: Of the towers' widths, `dim` and the rate of modality dropout.
FUSIONS: dict[str, Callable[[Sequence[int], int, float], Concat | Combined | Gated]] = {
    "concat": Concat,
    "mean": partial(Combined, "mean"),
    "sum": partial(Combined, "sum"),
    "max": partial(Combined, "max"),
    "gated": Gated,
}

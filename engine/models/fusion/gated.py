"""Fusions that weigh each row's towers: a gated multimodal unit, and attention pooling."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.models.fusion.base import Fusion, brought, clean, into_one_space, stood_in, tokens, wide
from kernels import combine_modalities, masked_projection


class Weighing(Fusion):
    """A sum of the towers, each times a weight of its own; a row's weights add up to 1 over what is present."""

    @abstractmethod
    def gates(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        """What each tower counts for: [rows, towers], 0 if missing, adding up to 1 unless all are."""


class Gated(Weighing):
    """A gated multimodal unit (Arevalo et al. 2017, arXiv:1702.01992): each row weighs its own towers.

    As in the paper a tower's gate is a function of all towers' vectors. Here it is one number a tower and not
    one an entry, and the gates of those that are present add up to 1: so they can be read as weights.
    """

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float) -> None:
        super().__init__(modality_dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.LayerNorm(dim), nn.GELU()) for width in widths
        )
        # Its last inputs say what is missing, as in a concat fusion.
        self.gate = nn.Linear(sum(widths) + len(widths), len(widths))
        self.missing = tokens(len(widths), dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = self.as_trained(present)
        normed = self._normed(pooled, present)
        xs = [wide(tower(x)) for tower, x in zip(self.towers, normed, strict=True)]
        scores = self._scores(normed, present)
        return combine_modalities(xs, mask=present, mode="gated", gates=scores) + stood_in(
            present, self.missing
        )

    def gates(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        return _softmax(self._scores(self._normed(pooled, present), present), present)

    def _normed(self, pooled: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        return [norm(x) for norm, x in zip(self.norms, clean(pooled, present), strict=True)]

    def _scores(self, normed: Sequence[Tensor], present: Tensor) -> Tensor:
        """The logits of the gates, [rows, towers]."""
        there = present.to(self.gate.weight.dtype)
        return masked_projection(
            [*normed, 1 - there],
            self.gate.weight,
            self.gate.bias,
            mask=torch.cat([present, present.new_ones(len(present), 1)], dim=1),
        )


class Attention(Weighing):
    """Attention pooling over the towers (Ilse et al. 2018, arXiv:1802.04712, equation 8).

    A tower's weight comes of its own vector alone, by a scorer that all towers share: softmax of w . tanh(V h).
    """

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float) -> None:
        super().__init__(modality_dropout)
        self.towers = into_one_space(widths, dim)
        self.scorer = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1))
        self.missing = tokens(len(widths), dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = self.as_trained(present)
        xs = brought(self.towers, pooled, present)
        fused = combine_modalities(xs, mask=present, mode="gated", gates=self._scores(xs))
        return fused + stood_in(present, self.missing)

    def gates(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        return _softmax(self._scores(brought(self.towers, pooled, present)), present)

    def _scores(self, xs: Sequence[Tensor]) -> Tensor:
        return torch.cat([self.scorer(x) for x in xs], dim=1)


def _softmax(scores: Tensor, present: Tensor) -> Tensor:
    # A finite number: of a row without any tower the softmax must be a number too, and be masked.
    masked = wide(scores).masked_fill(~present, torch.finfo(torch.float32).min)
    return torch.where(present, masked.softmax(1), 0.0)

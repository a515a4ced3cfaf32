"""Fusions that make the towers' vectors alike in distribution, so that one may stand in for another."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.fusion.base import brought
from engine.models.fusion.combined import Combined
from kernels import mmd_rbf


class Aligned(Combined):
    """The mean of towers in one space. A critic a pair of towers says how well they can be told apart."""

    def __init__(
        self,
        critic: Callable[[int, float], nn.Module],
        widths: Sequence[int],
        dim: int,
        modality_dropout: float,
        alignment: float = 0.1,
    ) -> None:
        super().__init__("mean", widths, dim, modality_dropout)
        self.pairs = list(combinations(range(len(widths)), 2))
        self.critics = nn.ModuleList(critic(dim, alignment) for _ in self.pairs)

    def learn(self, pooled: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor | None]:
        present = self.as_trained(present)
        xs = brought(self.towers, pooled, present)
        found = [
            critic(xs[i], xs[j], present[:, i], present[:, j])
            for (i, j), critic in zip(self.pairs, self.critics, strict=True)
        ]
        return self.combined(xs, present), torch.stack(found).mean() if found else None


class Discrepancy(nn.Module):
    """The maximum mean discrepancy, as in deep adaptation networks between two domains (Long et al. 2015,
    arXiv:1502.02791), times `alignment`."""

    def __init__(self, dim: int, alignment: float) -> None:  # noqa: ARG002 (a critic has both)
        super().__init__()
        self.alignment = alignment

    def forward(self, x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
        """x, y [rows, dim] and which rows have them, [rows] each, bool -> a scalar."""
        return self.alignment * mmd_rbf(x, y, weight_x=in_x, weight_y=in_y)


class Discriminator(nn.Module):
    """Learns to tell whose vector it is shown, while the towers learn to mislead it.

    By a reversed gradient (Ganin et al. 2016, arXiv:1505.07818), so that one optimiser does both: the discriminator
    learns at full strength, the towers at `alignment` times as much.
    """

    def __init__(self, dim: int, alignment: float) -> None:
        super().__init__()
        self.alignment = alignment
        hidden = max(dim // 2, 1)
        self.network = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
        """As `Discrepancy.forward`: the cross-entropy of its guesses, each tower counting for one half."""
        guesses = self.network(Reversed.apply(torch.cat([x, y]), self.alignment)).squeeze(1).float()
        truth = torch.cat([torch.ones_like(guesses[: len(x)]), torch.zeros_like(guesses[len(x) :])])
        # What lies in absent rows is finite, and a weight of 0 keeps it out.
        weight = torch.cat([_shares(in_x), _shares(in_y)])
        return functional.binary_cross_entropy_with_logits(guesses, truth, weight, reduction="sum")


def _shares(present: Tensor) -> Tensor:
    """One half, shared by the rows that are there."""
    there = present.float()
    return 0.5 * there / there.sum().clamp(min=1)


class Reversed(torch.autograd.Function):
    """Does nothing on the way there; on the way back the gradient is times -strength."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None

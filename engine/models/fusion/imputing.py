"""The family mm-gan: a generator imputes what is missing, a discriminator tells it from what is real. Knows no encoder.

Adversarial completion as in Cai et al. 2018 (Deep adversarial learning for multi-modality missing data completion, KDD), with
the discriminator of GAIN (Yoon et al. 2018, arXiv:1806.02920), which sees a whole completed row, and, as in SMIL (Ma et al.
2021, arXiv:2103.05677), in the space of features, where the task itself says what is worth imputing.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.fusion.alignment import Reversed
from engine.models.fusion.base import Fusion, brought, into_one_space, tokens, wide

#: What stands in for a missing tower: the others exist so that the generator can be compared with them.
StandIn = Literal["generator", "token", "zero"]

#: How much the reconstruction counts beside the task's loss, and the misled discriminator beside its own.
RECONSTRUCTION, ADVERSARIAL = 1.0, 0.1


class Imputing(Fusion):
    """Brings the towers to one space, imputes there what is missing, and hands all of it to `fusion`.

    `fusion` is one over towers of `dim` each, without modality dropout of its own. In training one tower of each row that
    has several is left out and imputed from the others: the generator is to come near to what was there, and to mislead the
    discriminator. Both learn by one optimiser, through a reversed gradient.
    """

    def __init__(
        self,
        fusion: Fusion,
        widths: Sequence[int],
        dim: int,
        modality_dropout: float,
        stand_in: StandIn = "generator",
    ) -> None:
        super().__init__(modality_dropout)
        self.stand_in = stand_in
        self.towers = into_one_space(widths, dim)
        self.missing = tokens(len(widths), dim)
        self.generator = Generator(len(widths), dim)
        self.discriminator = Discriminator(len(widths), dim)
        self.fusion = fusion

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = self.as_trained(present)
        xs = self._completed(self._brought(pooled, present), present)
        return self.fusion(xs, torch.ones_like(present))

    def learn(self, pooled: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor | None]:
        xs, shown = self._brought(pooled, present), self.as_trained(present)
        fused, wanted = self.fusion.learn(self._completed(xs, shown), torch.ones_like(shown))
        # The fusion may want something small, too.
        asked = [x for x in (wanted, self._penalty(xs.detach(), present)) if x is not None]
        return fused, torch.stack(asked).sum() if asked else None

    def _brought(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        """[rows, towers, dim], of missing towers anything finite."""
        return torch.stack(brought(self.towers, pooled, present), dim=1)

    def _completed(self, xs: Tensor, present: Tensor) -> list[Tensor]:
        return list(torch.where(present.unsqueeze(2), xs, self.imputed(xs, present)).unbind(1))

    def imputed(self, xs: Tensor, present: Tensor) -> Tensor:
        """What stands in for each tower, [rows, towers, dim]: made of the present ones alone."""
        if self.stand_in == "zero":
            return torch.zeros_like(xs)
        if self.stand_in == "token":
            return self.missing.expand_as(xs)
        return self.missing + wide(self.generator(xs, present))

    def _penalty(self, xs: Tensor, present: Tensor) -> Tensor | None:
        """Of generator and discriminator, for one tower left out of each row that has several.

        xs [rows, towers, dim] are what is to be imputed, not what is to become easy to impute: they have no gradient.
        """
        rows = present.sum(1) > 1
        if self.stand_in != "generator" or not bool(rows.any()):
            return None
        xs, present = xs[rows], present[rows]
        left_out = _one_of(present)
        kept = present & ~left_out
        made = self.imputed(xs, kept)
        missed = (made - xs).square().mean(2)[left_out].mean()
        told = self._told(xs, made, present, left_out)
        return RECONSTRUCTION * missed + told

    def _told(self, xs: Tensor, made: Tensor, present: Tensor, left_out: Tensor) -> Tensor:
        """The discriminator's cross-entropy over present and imputed towers, each kind counting for one half."""
        real = present & ~left_out
        completed = torch.where(real.unsqueeze(2), xs, Reversed.apply(made, ADVERSARIAL))
        guesses = self.discriminator(completed).float()
        costs = functional.binary_cross_entropy_with_logits(guesses, real.float(), reduction="none")
        return 0.5 * (costs[real].mean() + costs[left_out].mean())


class Generator(nn.Module):
    """Present towers and which they are -> something for every tower. [rows, towers, dim] and [rows, towers] -> the first."""

    def __init__(self, towers: int, dim: int) -> None:
        super().__init__()
        self.read = nn.Linear(towers * dim + towers, dim)
        self.network = nn.Sequential(
            nn.LayerNorm(dim), nn.GELU(), nn.Linear(dim, dim), nn.LayerNorm(dim), nn.GELU()
        )
        self.write = nn.Linear(dim, towers * dim)

    def forward(self, xs: Tensor, present: Tensor) -> Tensor:
        seen = torch.where(present.unsqueeze(2), xs, 0.0).flatten(1)
        made: Tensor = self.write(self.network(self.read(torch.cat([seen, present.to(seen.dtype)], dim=1))))
        return made.view_as(xs)


class Discriminator(nn.Module):
    """A completed row -> of each tower the logit that it is real. [rows, towers, dim] -> [rows, towers]"""

    def __init__(self, towers: int, dim: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(towers * dim, dim), nn.LayerNorm(dim), nn.GELU(), nn.Linear(dim, towers)
        )

    def forward(self, completed: Tensor) -> Tensor:
        logits: Tensor = self.network(completed.flatten(1))
        return logits


def _one_of(present: Tensor) -> Tensor:
    """One true entry of each row, drawn. [rows, towers], bool"""
    draws = torch.where(present, torch.rand(present.shape, device=present.device), -1.0)
    return torch.zeros_like(present).scatter(1, draws.argmax(1, keepdim=True), True)

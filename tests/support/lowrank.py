"""Cases of low-rank fusion, and an independent float64 answer to each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels import lowrank_fusion
from support import exact
from support.exact import TOLERANCE, results
from support.projections import masks

__all__ = ["TOLERANCE", "Case", "case", "errors", "fuse", "papers", "results", "textbook", "wrong"]


@dataclass(frozen=True)
class Case:
    xs: Sequence[Tensor]
    factors: Sequence[Tensor]
    rank_weight: Tensor
    bias: Tensor
    mask: Tensor | None = None

    @property
    def leaves(self) -> dict[str, Tensor]:
        named = {"rank_weight": self.rank_weight, "bias": self.bias}
        named |= {f"xs[{m}]": x for m, x in enumerate(self.xs)}
        return named | {f"factors[{m}]": factor for m, factor in enumerate(self.factors)}

    def to(self, dtype: torch.dtype) -> "Case":
        """The same numbers as fresh leaves that require a gradient."""
        return self.changed(lambda leaf: leaf.detach().to(dtype).requires_grad_())

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Case":
        """The same call with other leaves."""
        return replace(
            self,
            xs=[change(x) for x in self.xs],
            factors=[change(factor) for factor in self.factors],
            rank_weight=change(self.rank_weight),
            bias=change(self.bias),
        )


def case(
    *,
    rows: int = 37,
    widths: Sequence[int] = (7, 48, 1),
    ranks: int = 4,
    outputs: int = 5,
    mask: str = "some",
    dtype: torch.dtype = torch.float32,
) -> Case:
    """A case with random numbers that `dtype` holds exactly, each input a leaf that requires a gradient."""
    random = torch.Generator().manual_seed(rows + 1000 * outputs + sum(widths))

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(dtype).requires_grad_()

    return Case(
        xs=[draw(rows, width) for width in widths],
        factors=[draw(ranks, width + 1, outputs) for width in widths],
        rank_weight=draw(ranks),
        bias=draw(outputs),
        mask=masks(mask, rows, len(widths), random),
    )


def fuse(case: Case) -> Tensor:
    return lowrank_fusion(case.xs, case.factors, case.rank_weight, case.bias, mask=case.mask)


def textbook(case: Case) -> Tensor:
    """Row by row: the tensor of all interactions against the whole weight that the factors stand for."""
    ranks = range(len(case.rank_weight))
    rows, modalities = len(case.xs[0]), len(case.xs)
    mask = torch.ones(rows, modalities) if case.mask is None else case.mask
    one, y = torch.ones_like(case.bias[:1]), []
    for row in range(rows):
        total = case.bias
        for rank in ranks:
            product: Any = case.rank_weight[rank]
            for m in range(modalities):
                x = case.xs[m][row] * mask[row, m].to(one.dtype)
                product = product * (torch.cat([x, one]) @ case.factors[m][rank])
            total = total + product
        y.append(total)
    return torch.stack(y) if rows else case.xs[0][:, :1] * case.bias


def papers(xs: Sequence[Tensor], factors: Sequence[Tensor], rank_weight: Tensor, bias: Tensor) -> Tensor:
    """As the authors' code does it, with the 1 behind the entries."""
    product: Any = 1
    for x, factor in zip(xs, factors, strict=True):
        product = product * torch.matmul(torch.cat([x, x.new_ones(len(x), 1)], dim=1), factor)
    return torch.matmul(rank_weight.unsqueeze(0), product.permute(1, 0, 2)).squeeze(1) + bias


#: The relative error of every result against the textbook in float64.
errors = partial(exact.errors, textbook=textbook)


def wrong(asked: Case, run: Callable[[Case], Tensor] = fuse) -> dict[str, float]:
    """The results whose error is above the tolerance."""
    tolerance = TOLERANCE[asked.xs[0].dtype]
    return {name: e for name, e in errors(results(run, asked), asked).items() if not e <= tolerance}

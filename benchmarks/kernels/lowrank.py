"""Low-rank fusion against the code of its paper."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.problem import Problem
from kernels import lowrank_fusion

RANKS, OUTPUTS, MODALITIES, WIDTH = 16, 256, 3, 768


def _inputs(rows: int) -> list[Any]:
    def new(*shape: int) -> Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16).requires_grad_()

    # Small enough that products of three are of the size of 1.
    factors = [
        (torch.randn(RANKS, WIDTH + 1, OUTPUTS, device="cuda") * WIDTH**-0.5).to(torch.bfloat16)
        for _ in range(MODALITIES)
    ]
    return [
        [new(rows, WIDTH) for _ in range(MODALITIES)],
        [factor.requires_grad_() for factor in factors],
        new(RANKS),
        new(OUTPUTS),
    ]


def _papers(xs: Sequence[Tensor], factors: Sequence[Tensor], rank_weight: Tensor, bias: Tensor) -> Tensor:
    """A 1 is appended to each modality, and each is multiplied with its factor of every rank."""
    product: Any = 1
    for x, factor in zip(xs, factors, strict=True):
        product = product * torch.matmul(torch.cat([x, x.new_ones(len(x), 1)], dim=1), factor)
    return torch.matmul(rank_weight.unsqueeze(0), product.permute(1, 0, 2)).squeeze(1) + bias


def _smart(xs: Sequence[Tensor], factors: Sequence[Tensor], rank_weight: Tensor, bias: Tensor) -> Tensor:
    """Without the appended ones, still one product a rank."""
    product: Any = 1
    for x, factor in zip(xs, factors, strict=True):
        product = product * torch.baddbmm(factor[:, -1:], x.expand(RANKS, *x.shape), factor[:, :-1])
    return (product * rank_weight[:, None, None]).sum(0) + bias


def _problem(rows: int, estimate: dict[str, float]) -> Problem:
    entries, weights = MODALITIES * rows * WIDTH, MODALITIES * RANKS * (WIDTH + 1) * OUTPUTS
    product = 2.0 * rows * WIDTH * RANKS * OUTPUTS * MODALITIES
    forward = 2 * (entries + weights + rows * OUTPUTS)
    return Problem(
        op="lowrank",
        label=f"B={rows} K={WIDTH} R={RANKS} O={OUTPUTS} M={MODALITIES} bf16",
        make=lambda: _inputs(rows),
        eager=_papers,
        smart=_smart,
        ours=lowrank_fusion,
        bytes={"fwd": forward, "full": 3 * forward},
        flops={"fwd": product, "full": 3 * product},
        estimate=estimate,
    )


PROBLEMS = [_problem(4096, {"eager": 198, "compile": 136, "ours": 145}), _problem(64, {})]

TUNED_ON: list[Problem] = []

TUNABLE: dict[str, list[dict[str, int]]] = {}

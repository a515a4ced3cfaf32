"""How much an answer rests on each modality: a fusion's own gates, or what moves when a column is hidden."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.infer.answers import WeightsBy


def weigh(
    fusion: nn.Module, pooled: Sequence[Any], present: Tensor, answer: Callable[[Tensor], Tensor]
) -> tuple[Tensor, WeightsBy]:
    """[rows, towers], a row's sum being 1 over its present towers.

    `answer` makes [rows, numbers] of a `present`: what is compared when a tower is hidden. The towers'
    vectors are there already, so that leaving one out costs a run of fusion and head.
    """
    gates: Any = getattr(fusion, "gates", None)
    if gates is not None:
        return _shares(gates(pooled, present).abs(), present), "gates"
    whole = answer(present)
    moved = torch.zeros(present.shape, device=present.device)
    for tower in range(present.shape[1]):
        hidden = present.clone()
        hidden[:, tower] = False
        moved[:, tower] = (answer(hidden) - whole).abs().mean(1)
    return _shares(moved, present), "leave_one_out"


def _shares(amounts: Tensor, present: Tensor) -> Tensor:
    """Where nothing moves the answer, all are equal."""
    there = present.to(amounts.dtype)
    kept = amounts * there
    total = kept.sum(1, keepdim=True)
    return torch.where(total > 0, kept / total.clamp(min=1e-30), there / there.sum(1, keepdim=True))

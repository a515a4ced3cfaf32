"""The launches of the maximum mean discrepancy that jobs make most: to compile them before they are needed."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from kernels.mmd import triton

#: Rows of either side, D, dtype, whether there are weights, whether unbiased.
_CASES = [
    (256, 256, torch.bfloat16, False, False),
    (256, 256, torch.float16, False, False),
    (256, 256, torch.float32, False, False),
    (256, 512, torch.bfloat16, True, True),
    (256, 768, torch.bfloat16, False, False),
    (256, 768, torch.float32, True, False),
    (256, 64, torch.bfloat16, True, False),
    (256, 48, torch.float32, False, False),
]


def typical(device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    return _launches(_CASES, device)


def most_typical(device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Two cases of them, which launch all kernels."""
    return _launches(_CASES[:3:2], device)


def _launches(
    cases: Sequence[tuple[int, int, torch.dtype, bool, bool]], device: str
) -> Iterator[tuple[str, Callable[[], Any]]]:
    for rows, width, dtype, weighs, unbiased in cases:
        x, y = torch.zeros(2, rows, width, dtype=dtype, device=device)
        weight = torch.ones(rows, device=device) if weighs else None
        label = f"mmd_rbf D={width} {dtype}{' weighted' * weighs}{' unbiased' * unbiased}"
        yield label, partial(_both_ways, x, y, weight, unbiased)


def _both_ways(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None, unbiased: bool) -> None:
    value, centre, scales = triton.forward(x, y, weight, weight, None, 5, unbiased)
    triton.backward(value, centre, scales, x, y, weight, weight, 5, [True, True])

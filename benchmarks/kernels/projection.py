"""The masked projection to the benchmark: a fully connected layer over three towers that lie apart."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.problem import Problem
from kernels import masked_projection

_WIDTHS, _INPUTS, _OUTPUTS = (768, 768, 512), 2048, 1024


def _make(rows: int, *, masked: bool, trained: int) -> Callable[[], Sequence[Any]]:
    """`trained` of the towers ask for a gradient. With a mask a third of the entries is missing."""

    def make() -> Sequence[Any]:
        options: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
        xs = [torch.randn(rows, width, **options) for width in _WIDTHS]
        for x in xs[:trained]:
            x.requires_grad_()
        weight = (torch.randn(_OUTPUTS, _INPUTS, **options) * _INPUTS**-0.5).requires_grad_()
        vectors = [torch.randn(_OUTPUTS, **options).requires_grad_() for _ in range(3 if masked else 1)]
        mask = torch.rand(rows, len(xs), device="cuda") > 1 / 3 if masked else None
        return xs, weight, mask, *vectors

    return make


def plain(xs: Sequence[Tensor], weight: Tensor, _mask: None, bias: Tensor) -> Tensor:
    return masked_projection(xs, weight, bias)


def plain_eager(xs: Sequence[Tensor], weight: Tensor, _mask: None, bias: Tensor) -> Tensor:
    return functional.linear(torch.cat(list(xs), dim=1), weight, bias)


def plain_smart(xs: Sequence[Tensor], weight: Tensor, _mask: None, bias: Tensor) -> Tensor:
    """No concatenation: a product a tower, each added to the last in bfloat16."""
    first, *others = zip(xs, weight.split(list(_WIDTHS), dim=1), strict=True)
    y = functional.linear(*first, bias)
    for x, block in others:
        y = torch.addmm(y, x, block.T)
    return y


def layer(
    xs: Sequence[Tensor], weight: Tensor, mask: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor
) -> Tensor:
    return masked_projection(
        xs, weight, bias, mask=mask, norm_weight=norm_weight, norm_bias=norm_bias, activation="gelu"
    )


def layer_eager(
    xs: Sequence[Tensor], weight: Tensor, mask: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor
) -> Tensor:
    there = mask.split(1, dim=1)
    present = [torch.where(own, x, 0) for own, x in zip(there, xs, strict=True)]
    z = functional.linear(torch.cat(present, dim=1), weight, bias)
    return functional.gelu(functional.layer_norm(z, z.shape[1:], norm_weight, norm_bias))


def _problem(
    rows: int, *, masked: bool = False, trained: int = 3, estimate: Mapping[str, float] | None = None
) -> Problem:
    features, result, weights = rows * _INPUTS * 2, rows * _OUTPUTS * 2, _OUTPUTS * _INPUTS * 2
    product = 2.0 * rows * _INPUTS * _OUTPUTS
    # The backward reads the result's gradient, the features and the weight, and writes what is trained.
    gradients = rows * sum(_WIDTHS[:trained]) * 2
    forward = features + weights + result
    shown = "mask LN gelu" if masked else "FC"
    return Problem(
        op="masked_projection",
        label=f"{shown} B={rows} K={_INPUTS} H={_OUTPUTS} bf16 dX {trained} of 3",
        make=_make(rows, masked=masked, trained=trained),
        eager=layer_eager if masked else plain_eager,
        ours=layer if masked else plain,
        smart=None if masked else plain_smart,
        bytes={"fwd": forward, "full": 2 * forward + gradients + weights},
        flops={"fwd": product, "full": product * (2 + sum(_WIDTHS[:trained]) / _INPUTS)},
        estimate=estimate or {},
        modes=("fwd",) if rows <= 64 and not masked else ("fwd", "full"),
    )


PROBLEMS = [
    _problem(8),
    _problem(64, estimate={"eager": 38, "compile": 6.6, "ours": 5.5}),
    _problem(4096, estimate={"eager": 45, "compile": 36, "ours": 35}),
    _problem(65536, trained=1, estimate={"eager": 1209, "compile": 1115, "ours": 720}),
    _problem(65536, masked=True, trained=1),
]

TUNED_ON = PROBLEMS


def _tile(**sizes: int) -> dict[str, int]:
    return {**sizes, "WAY": 1}


#: `to_both` first: where it is best, the two that it stands for are not launched.
TUNABLE: dict[str, list[dict[str, int]]] = {
    "projection.add_up": [
        {"LOOPS": 1},
        {"LOOPS": 2},
        _tile(BLOCK_ROWS=128, BLOCK_OUTPUTS=256, BLOCK_INPUTS=64, SPLIT=1, num_warps=8, num_stages=3),
        _tile(BLOCK_ROWS=128, BLOCK_OUTPUTS=128, BLOCK_INPUTS=64, SPLIT=1, num_warps=4, num_stages=3),
        _tile(BLOCK_ROWS=128, BLOCK_OUTPUTS=128, BLOCK_INPUTS=64, SPLIT=1, num_warps=8, num_stages=3),
        {"WAY": 2},
    ],
    "projection.to_both": [
        _tile(BLOCK_SIDE=128, BLOCK_INPUTS=256, BLOCK_DEPTH=64, SPLIT=1, num_warps=8, num_stages=4),
        _tile(BLOCK_SIDE=128, BLOCK_INPUTS=256, BLOCK_DEPTH=64, SPLIT=2, num_warps=8, num_stages=3),
        _tile(BLOCK_SIDE=128, BLOCK_INPUTS=128, BLOCK_DEPTH=64, SPLIT=1, num_warps=4, num_stages=3),
        _tile(BLOCK_SIDE=128, BLOCK_INPUTS=128, BLOCK_DEPTH=64, SPLIT=1, num_warps=8, num_stages=3),
        {"WAY": 2},
    ],
    "projection.to_inputs": [
        _tile(BLOCK_ROWS=128, BLOCK_INPUTS=256, BLOCK_OUTPUTS=64, num_warps=8, num_stages=3),
        _tile(BLOCK_ROWS=128, BLOCK_INPUTS=256, BLOCK_OUTPUTS=64, num_warps=8, num_stages=4),
        _tile(BLOCK_ROWS=128, BLOCK_INPUTS=128, BLOCK_OUTPUTS=64, num_warps=4, num_stages=3),
        _tile(BLOCK_ROWS=128, BLOCK_INPUTS=128, BLOCK_OUTPUTS=64, num_warps=8, num_stages=3),
        {"WAY": 2},
    ],
    "projection.to_weight": [
        _tile(BLOCK_OUTPUTS=128, BLOCK_INPUTS=256, BLOCK_ROWS=64, SPLIT=2, num_warps=8, num_stages=4),
        _tile(BLOCK_OUTPUTS=128, BLOCK_INPUTS=256, BLOCK_ROWS=64, SPLIT=4, num_warps=8, num_stages=3),
        _tile(BLOCK_OUTPUTS=128, BLOCK_INPUTS=128, BLOCK_ROWS=64, SPLIT=2, num_warps=4, num_stages=3),
        _tile(BLOCK_OUTPUTS=128, BLOCK_INPUTS=128, BLOCK_ROWS=64, SPLIT=2, num_warps=8, num_stages=3),
        {"WAY": 2},
    ],
    "projection.finish": [
        {"BLOCK_ROWS": 1, "num_warps": 1},
        {"BLOCK_ROWS": 1, "num_warps": 4},
        {"BLOCK_ROWS": 4, "num_warps": 8},
    ],
    "projection.to_sum": [
        {"BLOCK_ROWS": 1, "PROGRAMS": 1056, "STAGES": 3, "num_warps": 2},
        {"BLOCK_ROWS": 1, "PROGRAMS": 2112, "STAGES": 2, "num_warps": 4},
        {"BLOCK_ROWS": 1, "PROGRAMS": 1056, "STAGES": 1, "num_warps": 4},
        {"PROGRAMS": 256},
    ],
}

"""Token pooling to the benchmark: LayerNorm, masked mean and division by the length, over padded tokens."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.problem import Problem
from kernels import masked_token_pool


def _make(rows: int, most: int, width: int) -> Callable[[], Sequence[Tensor]]:
    """Half of the tokens are padding, evenly spread: the same lengths at every call, in a shuffled order."""

    def make() -> Sequence[Tensor]:
        tokens = torch.randn(rows, most, width, device="cuda", dtype=torch.bfloat16).requires_grad_()
        lengths = torch.linspace(1, most, rows, device="cuda").round().long()
        norm = [torch.randn(width, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(2)]
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).to("cuda")
        return tokens, lengths[order], *norm

    return make


def ours(tokens: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return masked_token_pool(tokens, lengths, norm_weight=weight, norm_bias=bias, l2_normalize=True)


def ours_max(tokens: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return masked_token_pool(tokens, lengths, norm_weight=weight, norm_bias=bias, mode="max")


def eager(tokens: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    normed = functional.layer_norm(tokens, tokens.shape[-1:], weight, bias)
    live = torch.arange(tokens.shape[1], device=tokens.device) < lengths.unsqueeze(1)
    total = torch.where(live.unsqueeze(-1), normed, 0).sum(1, dtype=torch.float32)
    return functional.normalize(total / lengths.clamp(min=1).unsqueeze(1), dim=1).to(tokens.dtype)


def eager_max(tokens: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    normed = functional.layer_norm(tokens, tokens.shape[-1:], weight, bias)
    dead = torch.arange(tokens.shape[1], device=tokens.device) >= lengths.unsqueeze(1)
    return normed.masked_fill(dead.unsqueeze(-1), float("-inf")).max(1).values


def smart(tokens: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The norm's affine part behind the mean, and the mean as a product with weights: one batched matrix product."""
    normed = functional.layer_norm(tokens, tokens.shape[-1:])
    live = torch.arange(tokens.shape[1], device=tokens.device) < lengths.unsqueeze(1)
    shares = live / lengths.clamp(min=1).unsqueeze(1)
    mean = torch.bmm(shares.to(tokens.dtype).unsqueeze(1), normed).squeeze(1).float()
    return functional.normalize(mean * weight + bias, dim=1).to(tokens.dtype)


def _problem(
    rows: int, most: int, *, mode: str = "mean", estimate: dict[str, float] | None = None
) -> Problem:
    width, live = 768, rows * (1 + most) / 2
    reading, whole = live * width * 2, rows * most * width * 2
    return Problem(
        op="masked_token_pool",
        label=f"{mode} B={rows} T={most} D={width} bf16 half padding",
        make=_make(rows, most, width),
        eager=eager_max if mode == "max" else eager,
        ours=ours_max if mode == "max" else ours,
        smart=None if mode == "max" else smart,
        # The forward reads live tokens; the backward reads them again and writes every token's gradient.
        bytes={"fwd": reading + rows * width * 6, "full": 2 * reading + whole + rows * width * 14},
        flops={},
        estimate=estimate or {},
        estimate_mode="fwd",
    )


PROBLEMS = [
    _problem(256, 77),
    _problem(256, 197),
    _problem(256, 1500, estimate={"eager": 829, "compile": 329, "ours": 95}),
    _problem(8, 1500),
    _problem(256, 197, mode="max"),
]
TUNED_ON = [*PROBLEMS[:3], PROBLEMS[4]]


def _tiles(*shapes: tuple[int, int, int, int]) -> list[dict[str, int]]:
    names = ("SPLITS", "TOKENS", "STAGES", "num_warps")
    return [dict(zip(names, shape, strict=True)) for shape in shapes]


TUNABLE: dict[str, list[dict[str, int]]] = {
    "token_pool.mean": _tiles(
        (1, 4, 3, 4),
        (2, 4, 3, 4),
        (4, 4, 3, 4),
        (8, 4, 3, 4),
        (1, 16, 2, 16),
        (1, 8, 3, 8),
        (2, 16, 2, 8),
        (4, 8, 3, 8),
    ),
    "token_pool.max": _tiles((2, 4, 3, 4), (4, 4, 3, 4), (8, 4, 2, 4), (2, 8, 3, 8), (4, 8, 2, 8)),
    "token_pool.mean_gradient": _tiles(
        (2, 4, 3, 4), (4, 4, 3, 4), (8, 4, 3, 4), (16, 4, 3, 4), (4, 8, 2, 8), (2, 16, 2, 16)
    ),
    "token_pool.max_gradient": _tiles((2, 4, 3, 4), (8, 4, 3, 4), (4, 8, 3, 8), (16, 4, 2, 4)),
}

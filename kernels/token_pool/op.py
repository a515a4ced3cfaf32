"""Token pooling as two ops that torch knows: schema, choice of implementation, shapes. Knows no autograd."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels import dispatch
from kernels.norms import accumulation
from kernels.registry import Half, like_those_needed, register

_IMPLEMENTATIONS = {
    dispatch.Backend.TORCH: "kernels.token_pool.reference",
    dispatch.Backend.TRITON: "kernels.token_pool.triton",
}

_ARGUMENTS = (
    "Tensor tokens, Tensor? lengths, Tensor? cu_seqlens, Tensor? norm_weight, Tensor? norm_bias, "
    "float eps, str mode, bool l2_normalize"
)


def _forward_shapes(
    tokens: Tensor,
    _lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    _norm_weight: Tensor | None,
    _norm_bias: Tensor | None,
    _eps: float,
    mode: str,
    _l2_normalize: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    rows = tokens.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    shape = rows, tokens.shape[-1]
    pooled = tokens.new_empty(shape, dtype=accumulation(tokens.dtype))
    places = tokens.new_empty((0,) if mode == "mean" else shape, dtype=torch.int64)
    return tokens.new_empty(shape), pooled, places


def _backward_shapes(
    _grad: Tensor,
    _pooled: Tensor,
    _places: Tensor,
    tokens: Tensor,
    _lengths: Tensor | None,
    _cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    _eps: float,
    _mode: str,
    _l2_normalize: bool,
    needs: Sequence[bool],
) -> list[Tensor]:
    sources = (tokens, norm_weight, norm_bias)
    return like_those_needed(sources, needs)


forward, backward = register(
    "masked_token_pool",
    _IMPLEMENTATIONS,
    forward=Half(f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)", _forward_shapes, anchor=0),
    backward=Half(
        f"(Tensor grad, Tensor pooled, Tensor places, {_ARGUMENTS}, bool[] needs) -> Tensor[]",
        _backward_shapes,
        anchor=3,
    ),
)

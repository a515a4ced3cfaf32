"""Token pooling by Triton: which kernel runs, and where their results lie.

The forward reads each live token once. Where rows are few, several programs share one, each with a split of its
tokens, and a second kernel adds the splits up in a fixed order. The backward writes each token once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.registry import like_those_needed
from kernels.token_pool import launches

#: A token is held in registers as a whole.
WIDEST = 8192

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def refuses_forward(
    tokens: Tensor,
    _lengths: Tensor | None,
    _cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    *_options: object,
) -> str | None:
    if tokens.shape[-1] > WIDEST:
        return f"the kernel takes at most {WIDEST} columns"
    for one in (tokens, norm_weight, norm_bias):
        if one is not None and one.dtype not in _DTYPES:
            return f"the kernel takes no {one.dtype}"
    return None


def refuses_backward(_grad: Tensor, _pooled: Tensor, _places: Tensor, *arguments: object) -> str | None:
    return refuses_forward(*arguments)  # type: ignore[arg-type]


def forward(
    tokens: Tensor,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    mode: str,
    l2_normalize: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output [rows, D]; what `backward` needs: the vectors before the norm's weight, and where they are from."""
    rows = tokens.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    shape = rows, tokens.shape[-1]
    # Without tokens no kernel runs, and all of it is zeros.
    new = tokens.new_empty if tokens.numel() and rows else tokens.new_zeros
    y, pooled = new(shape), new(shape, dtype=torch.float32)
    places = new((0,) if mode == "mean" else shape, dtype=torch.int64)
    if y.numel() and tokens.numel():
        lie = _dense(lengths), _dense(cu_seqlens)
        norm = _dense(norm_weight), _dense(norm_bias)
        pool = launches.max_of_tokens if mode == "max" else launches.mean_of_tokens
        pool(tokens, *lie, *norm, y, pooled, places, eps, mode, l2_normalize)
    return y, pooled, places


def backward(
    grad: Tensor,
    pooled: Tensor,
    places: Tensor,
    tokens: Tensor,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    mode: str,
    l2_normalize: bool,
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients that `needs` asks for, in the order tokens, norm_weight, norm_bias."""
    sources = tokens, norm_weight, norm_bias
    gradients = like_those_needed(sources, needs)
    if not tokens.numel() or not len(pooled):
        return [gradient.zero_() for gradient in gradients]
    given = iter(gradients)
    dx, dweight, dbias = (
        next(given) if needed and source is not None else None
        for source, needed in zip(sources, needs, strict=True)
    )
    lie, pooled = (_dense(lengths), _dense(cu_seqlens)), pooled.contiguous()
    wants_norm = dweight is not None or dbias is not None
    # Behind a division by the length, the norm's part of the gradient is not `grad` itself.
    dy = torch.empty_like(pooled) if wants_norm and l2_normalize else None
    if dx is not None or dy is not None:
        launches.tokens_gradient(
            grad,
            pooled,
            None if mode == "mean" else places.contiguous(),
            tokens,
            *lie,
            _dense(norm_weight),
            _dense(norm_bias),
            dx,
            dy,
            eps,
            mode,
            l2_normalize,
        )
    if wants_norm:
        launches.norm_gradients(grad if dy is None else dy, pooled, *lie, tokens.shape[-2], dweight, dbias)
    return gradients


def _dense(vector: Tensor | None) -> Tensor | None:
    return None if vector is None else vector.contiguous()

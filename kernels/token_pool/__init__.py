"""The door of token pooling: what engine code calls, with its autograd. Knows no maths."""

from typing import Any, Literal

import torch
from torch import Tensor

from kernels.token_pool import op
from kernels.token_pool.checks import check

__all__ = ["masked_token_pool"]


def masked_token_pool(
    tokens: Tensor,
    lengths: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    eps: float = 1e-5,
    mode: Literal["mean", "max", "cls"] = "mean",
    l2_normalize: bool = False,
) -> Tensor:
    """Makes one vector of each row's tokens, in one op: [rows, D].

        p[b] = pool over the live t of (LayerNorm(tokens[b, t]) * norm_weight + norm_bias)
        y[b] = p[b] / |p[b]|        if l2_normalize, else p[b]

    tokens       [rows, T, D]; or packed, [all tokens, D], beside cu_seqlens
    lengths      [rows], int32 or int64: the first so many tokens of a row are live; more than T is T, less
                 than 0 is 0. Without it all are
    cu_seqlens   [rows + 1], int32 or int64, rising: row b's tokens lie from cu_seqlens[b] to cu_seqlens[b + 1].
                 Tokens before the first and behind the last number are dead
    norm_weight  [D]; LayerNorm runs on each token if it is given, with `eps`, and with norm_bias [D] if that is
    mode         `mean`, `max` (the first of equal ones gets the gradient) or `cls` (the first token)

    A row without live tokens gives zeros, also where there is a norm_bias, and takes no part in any gradient. NaN in
    a dead token reaches neither the output nor a gradient, and its own gradient is 0; NaN in a live one does
    reach them. Sums and statistics are kept in float32 or better, and the output has the dtype of `tokens`, also
    under autocast. Inputs that require no gradient cost none. Equal calls give equal bits.

    Raises ValueError for arguments that do not fit together, `dispatch.KernelMissing` if Triton was asked for by
    name, and RuntimeError on a second derivative.
    """
    check(tokens, lengths, cu_seqlens, norm_weight, norm_bias, mode)
    y: Tensor = _MaskedTokenPool.apply(
        lengths, cu_seqlens, eps, mode, l2_normalize, tokens, norm_weight, norm_bias
    )
    return y


class _MaskedTokenPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        lengths: Tensor | None,
        cu_seqlens: Tensor | None,
        eps: float,
        mode: str,
        l2_normalize: bool,
        tokens: Tensor,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
    ) -> Tensor:
        y, pooled, places = op.forward(
            tokens, lengths, cu_seqlens, norm_weight, norm_bias, eps, mode, l2_normalize
        )
        ctx.save_for_backward(pooled, places, tokens, lengths, cu_seqlens, norm_weight, norm_bias)
        ctx.options = eps, mode, l2_normalize
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Grad mode is on in here only under create_graph, whose result would lack this op's part in silence.
        if torch.is_grad_enabled():
            raise RuntimeError("masked_token_pool has no second derivative; do not use create_graph=True")
        needs = ctx.needs_input_grad[5:]
        gradients = iter(op.backward(grad, *ctx.saved_tensors, *ctx.options, needs))
        return (*(None,) * 5, *(next(gradients) if needed else None for needed in needs))

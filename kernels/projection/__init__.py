"""The door of the masked projection: what engine code calls, with its autograd. Knows no maths."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from kernels.projection import op
from kernels.projection.checks import check

__all__ = ["masked_projection"]


def masked_projection(
    xs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    combine: Literal["concat", "mean"] = "concat",
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: Literal["none", "relu", "gelu", "silu"] = "none",
) -> Tensor:
    """Projects the modalities that are present and adds them up, in one op: [rows, H].

        z[b] = bias + sum over m of share[b, m] * (xs[m][b] @ W_m.T)
        y[b] = activation(LayerNorm(z[b]) * norm_weight + norm_bias)

    xs           M tensors [rows, K_m] of one dtype; M has no limit
    weight       [H, sum of K_m], W_m being the columns of modality m: the weight of an `nn.Linear` over
                 the concatenation, so state dicts are the same
    bias         [H]
    mask         [rows, M], bool or weights >= 0; without it every entry is present
    combine      `concat`: share = mask, which is Linear over the concatenation with absent entries zeroed;
                 `mean`: share = mask / the sum of its row, all 0 for a row without any modality
    norm_weight  [H]; LayerNorm runs if it is given, with `eps`, and with norm_bias [H] if that is given
    activation   `none`, `relu`, `gelu` (by erf) or `silu`

    An entry whose mask is 0 takes no part: NaN or infinity in it reach neither the output nor a gradient,
    and its own gradient is 0. NaN in a present entry does reach them. The mask is a constant: it scales the
    gradients and gets none. Inputs that require no gradient cost none. Sums are kept in float32 or better;
    the output has the dtype of `weight`, or autocast's. Equal calls give equal bits.

    Raises ValueError for arguments that do not fit together, `dispatch.KernelMissing` if Triton was asked
    for by name, and RuntimeError on a second derivative.
    """
    xs, weight = [_under_autocast(x) for x in xs], _under_autocast(weight)
    check(xs, weight, bias, mask, combine, norm_weight, norm_bias, activation)
    y: Tensor = _MaskedProjection.apply(
        mask, combine == "mean", eps, activation, weight, bias, norm_weight, norm_bias, *xs
    )
    return y


def _under_autocast(tensor: Tensor) -> Tensor:
    """What autocast hands to a Linear: floating point in autocast's dtype, save for float64."""
    device = tensor.device.type
    eligible = tensor.is_floating_point() and tensor.dtype != torch.float64
    if not eligible or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


class _MaskedProjection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mask: Tensor | None,
        mean: bool,
        eps: float,
        activation: str,
        weight: Tensor,
        bias: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        *xs: Tensor,
    ) -> Tensor:
        y, z = op.forward(xs, weight, bias, mask, mean, norm_weight, norm_bias, eps, activation)
        ctx.save_for_backward(z, mask, weight, bias, norm_weight, norm_bias, *xs)
        ctx.mean, ctx.eps, ctx.activation = mean, eps, activation
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Grad mode is on in here only under create_graph, whose result would lack this op's part in silence.
        if torch.is_grad_enabled():
            raise RuntimeError("masked_projection has no second derivative; do not use create_graph=True")
        z, mask, weight, bias, norm_weight, norm_bias, *xs = ctx.saved_tensors
        arguments = xs, weight, bias, mask, ctx.mean, norm_weight, norm_bias, ctx.eps, ctx.activation
        constants, needs = (None, None, None, None), ctx.needs_input_grad[4:]
        gradients = iter(op.backward(grad, z, *arguments, needs))
        return (*constants, *(next(gradients) if needed else None for needed in needs))

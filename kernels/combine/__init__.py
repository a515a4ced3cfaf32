"""The door of combining modalities: what engine code calls, with its autograd. Knows no maths."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from kernels.combine import op
from kernels.combine.checks import check
from kernels.combine.reference import reads_entries

__all__ = ["combine_modalities"]


def combine_modalities(
    xs: Sequence[Tensor],
    *,
    mask: Tensor | None = None,
    mode: Literal["sum", "mean", "max", "gated"] = "sum",
    gates: Tensor | None = None,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: Literal["none", "relu", "gelu", "silu"] = "none",
) -> Tensor:
    """Makes one vector of each row's present modalities, in one op: [rows, H].

        z[b] = sum over the present m of share[b, m] * xs[m][b]
        y[b] = activation(LayerNorm(z[b]) * norm_weight + norm_bias)

    xs           M tensors [rows, H] of one dtype; M has no limit
    mask         [rows, M], bool or weights >= 0; without it every entry is present
    mode         `sum`: share = mask
                 `mean`: share = mask / the sum of its row
                 `gated`: share = mask * exp(gates) / the sum of that over the row's modalities, which for a bool
                 mask is the softmax of the gates of those present
                 `max`: the largest of the present entries; a weight says only that its modality is present, and
                 the first of equal entries gets the gradient
    gates        the logits that `gated` needs, of any floating dtype: one number a modality, [rows, M], or one an
                 entry, [rows, M, H], as a gated multimodal unit has them (Arevalo et al. 2017, arXiv:1702.01992;
                 for two modalities the softmax is the paper's sigmoid of the gates' difference)
    norm_weight  [H]; LayerNorm runs if it is given, with `eps`, and with norm_bias [H] if that is given
    activation   `none`, `relu`, `gelu` (by erf) or `silu`

    Of a row without any modality z is 0. An entry whose mask is 0 takes no part: NaN or infinity in it or in its
    gate reach neither the output nor a gradient, and their own gradients are 0. NaN in a present one does reach
    them. The mask is a constant: it scales the gradients and gets none. Inputs that require no gradient cost none.
    Sums and softmax are kept in float32 or better; the output has the dtype of `xs`, also under autocast. Equal
    calls give equal bits.

    Raises ValueError for arguments that do not fit together, `dispatch.KernelMissing` if Triton was asked for by
    name and is not there, and RuntimeError on a second derivative.
    """
    check(xs, mask, mode, gates, norm_weight, norm_bias, activation)
    y: Tensor = _CombineModalities.apply(mask, mode, eps, activation, gates, norm_weight, norm_bias, *xs)
    return y


class _CombineModalities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mask: Tensor | None,
        mode: str,
        eps: float,
        activation: str,
        gates: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        *xs: Tensor,
    ) -> Tensor:
        # A plain sum or mean knows its gradients without its inputs, which may then be freed.
        kept = xs if reads_entries(mode, norm_weight, activation) else ()
        ctx.save_for_backward(mask, gates, norm_weight, norm_bias, *kept)
        ctx.mode, ctx.eps, ctx.activation = mode, eps, activation
        y: Tensor = op.forward(xs[0], xs[1:], mask, gates, mode, norm_weight, norm_bias, eps, activation)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Grad mode is on in here only under create_graph, whose result would lack this op's part in silence.
        if torch.is_grad_enabled():
            raise RuntimeError("combine_modalities has no second derivative; do not use create_graph=True")
        mask, gates, norm_weight, norm_bias, *xs = ctx.saved_tensors
        arguments = xs, mask, gates, ctx.mode, norm_weight, norm_bias, ctx.eps, ctx.activation
        constants, needs = (None, None, None, None), ctx.needs_input_grad[4:]
        gradients = iter(op.backward(grad, *arguments, needs))
        return (*constants, *(next(gradients) if needed else None for needed in needs))

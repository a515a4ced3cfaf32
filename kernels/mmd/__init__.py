"""The door of the maximum mean discrepancy: what engine code calls, with its autograd. Knows no maths."""

from typing import Any

import torch
from torch import Tensor

from kernels.mmd import op
from kernels.mmd.checks import check
from kernels.norms import accumulation

__all__ = ["mmd_rbf"]


def mmd_rbf(
    x: Tensor,
    y: Tensor,
    *,
    bandwidth: float | Tensor | None = None,
    num_kernels: int = 5,
    unbiased: bool = False,
    weight_x: Tensor | None = None,
    weight_y: Tensor | None = None,
) -> Tensor:
    """How far two samples are from being of one distribution: the squared MMD under a sum of RBF kernels, a scalar.

        k(a, b) = sum over q = 0 .. num_kernels - 1 of exp(-|a - b|^2 / (bandwidth * 2 ** (q - num_kernels // 2)))
        MMD^2   = mean of k(x_i, x_j) + mean of k(y_i, y_j) - 2 * mean of k(x_i, y_j)

    x, y              [N, D] and [M, D], of one dtype
    bandwidth         > 0: a number, or a tensor without axes on the device of x, which is never waited for. Without
                      it: the mean of |a - b|^2 over all pairs of different rows of x and y together, each row of
                      weight > 0 counted once. A constant: the gradient does not pass through it
    num_kernels       1 to 10
    unbiased          False: the means are over all pairs, i = j among them. True: those within x and within y
                      are over the pairs i != j; the answer may then be negative
    weight_x, weight_y  [N] and [M], bool or numbers >= 0, divided by their sum; the means weigh a pair by the product
                      of its weights. Constants. Without them all rows weigh the same

    Both estimators are those of Gretton et al. 2012 (JMLR 13, equations 3 and 5). The kernels, their bandwidths in
    powers of two and the mean distance are those of the code usual for deep adaptation networks (Long et al. 2015,
    arXiv:1502.02791), whose `kernel_mul` is 2.

    A row of weight 0 takes no part: NaN in it reaches neither the answer nor a gradient, and its own gradient is 0.
    NaN in any other row makes the answer NaN. Where a mean is over no pair (no rows, no weights above 0, or one single
    row if unbiased) nothing can be said: the answer is 0, and so are all gradients.

    The answer is float32, or float64 for float64 inputs, also under autocast; sums are kept in that. Memory grows as
    N + M and never as their product. Of float32 inputs the kernel takes products as
    `torch.backends.cuda.matmul.allow_tf32` says: in TF32, or in three of them, which is float32's own accuracy. Inputs
    that require no gradient cost none. Equal calls give equal bits.

    Raises ValueError for arguments that do not fit together, `dispatch.KernelMissing` if Triton was asked for by
    name, and RuntimeError on a second derivative.
    """
    check(x, y, bandwidth, num_kernels, weight_x, weight_y)
    if isinstance(bandwidth, float | int):
        bandwidth = torch.full((), bandwidth, dtype=accumulation(x.dtype), device=x.device)
    value: Tensor = _MMD.apply(weight_x, weight_y, bandwidth, num_kernels, unbiased, x, y)
    return value


class _MMD(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight_x: Tensor | None,
        weight_y: Tensor | None,
        bandwidth: Tensor | None,
        num_kernels: int,
        unbiased: bool,
        x: Tensor,
        y: Tensor,
    ) -> Tensor:
        value, centre, scales = op.forward(x, y, weight_x, weight_y, bandwidth, num_kernels, unbiased)
        ctx.save_for_backward(centre, scales, x, y, weight_x, weight_y)
        ctx.num_kernels = num_kernels
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Grad mode is on in here only under create_graph, whose result would lack this op's part in silence.
        if torch.is_grad_enabled():
            raise RuntimeError("mmd_rbf has no second derivative; do not use create_graph=True")
        needs = ctx.needs_input_grad[5:]
        gradients = iter(op.backward(grad, *ctx.saved_tensors, ctx.num_kernels, needs))
        return (*(None,) * 5, *(next(gradients) if needed else None for needed in needs))

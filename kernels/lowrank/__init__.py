"""Low-rank fusion, in plain torch and shaped for fast matrix products; torch's own autograd goes through it.

There is no kernel of ours: nearly all of its time is matrix products, which torch does best.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from kernels.lowrank.checks import check

__all__ = ["lowrank_fusion"]

#: Matrix products in half precision are fast if the rows of their operands start on 16 bytes.
ALIGNED = 8


def lowrank_fusion(
    xs: Sequence[Tensor],
    factors: Sequence[Tensor],
    rank_weight: Tensor,
    bias: Tensor,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Fuses modalities by a tensor of all their interactions, held as a sum of R products: [rows, O].

        y[b] = bias + sum over r of rank_weight[r] * product over m of ([xs[m][b], 1] @ factors[m][r])

    xs           M tensors [rows, K_m] of one dtype
    factors      M tensors [R, K_m + 1, O]; the last row of each belongs to the 1 that follows the entries. (The
                 authors' code has the 1 in front: their factor is ours after `roll(-1, dims=1)`)
    rank_weight  [R]
    bias         [O]
    mask         [rows, M], bool or weights >= 0 that scale the entries; without it every entry is present

    This is low-rank multimodal fusion (Liu et al. 2018, arXiv:1806.00064). Of a modality whose mask is 0 only the 1
    is left: what stays are the interactions of the others, which is why the 1 is there. Left out of the product it
    would leave a tensor that was never trained. NaN in an absent entry reaches neither the output nor a gradient.

    The products over modalities are in the dtype of `xs`, or autocast's, as is the output. Parameters may have
    another dtype. It is fastest where R * O is a multiple of 8. Raises ValueError for arguments that do not fit.
    """
    check(xs, factors, rank_weight, bias, mask)
    device, dtype = xs[0].device.type, xs[0].dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    # Autocast would widen the products before it adds them up.
    with torch.autocast(device, enabled=False):
        present = [None] * len(xs) if mask is None else mask.split(1, dim=1)
        clean = [_present(x, there).to(dtype) for x, there in zip(xs, present, strict=True)]
        # A product may be scaled in any of its factors, and in a factor it costs no pass over the rows.
        scaled = [factors[0] * rank_weight.to(factors[0].dtype)[:, None, None], *factors[1:]]
        parts = [_part(x, factor.to(dtype)) for x, factor in zip(clean, scaled, strict=True)]
        return prod(parts[1:], start=parts[0]).sum(1) + bias.to(dtype)


def _present(x: Tensor, there: Tensor | None) -> Tensor:
    """Zeros in absent entries. Never by a product: 0 x NaN is NaN."""
    if there is None:
        return x
    kept = torch.where(there != 0, x, 0)
    return kept if there.dtype == torch.bool else kept * there.to(x.dtype)


def _part(x: Tensor, factor: Tensor) -> Tensor:
    """`[x, 1] @ factor[r]` for every rank, [rows, R, O], as one product with nothing appended to x."""
    ranks, width, outputs = factor.shape
    weight, bias = factor.transpose(0, 1).reshape(width, ranks * outputs).split([width - 1, 1])
    missing = -x.shape[1] % ALIGNED
    if missing:
        x, weight = functional.pad(x, (0, missing)), functional.pad(weight, (0, 0, 0, missing))
    return torch.addmm(bias.squeeze(0), x, weight).unflatten(1, (ranks, outputs))

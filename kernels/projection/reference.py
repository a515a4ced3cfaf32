"""The masked projection and its gradients in plain torch: the specification, and the path for the CPU.

Knows no autograd: the backward is written out, so that frozen inputs cost nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.activations import ACTIVATIONS, GRADIENTS
from kernels.norms import accumulation, affine, standardise, through_standardise

#: From so many on, the sum that is kept for the backward costs more in float32 than its rounding does harm.
_MANY_ROWS = 1024


def keeps_sum(norm_weight: Tensor | None, activation: str) -> bool:
    """Whether the backward needs the sum that norm and activation were applied to."""
    return norm_weight is not None or activation != "none"


def sum_dtype(weight: Tensor, rows: int, norm_weight: Tensor | None, activation: str) -> torch.dtype:
    """In what that sum is kept: in the weight's dtype if the batch is large, which halves what has to be moved.

    Of few rows it costs nothing to keep all bits, and few rows do not average errors out. The step of a relu after
    LayerNorm always needs them: a rounded sum puts some entries on the wrong side of it.
    """
    steps = norm_weight is not None and activation == "relu"
    return weight.dtype if rows >= _MANY_ROWS and not steps else accumulation(weight.dtype)


def forward(
    xs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    mean: bool,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """The output [rows, H], and the sum before norm and activation for `backward` (empty if not needed)."""
    precision = accumulation(weight.dtype)
    z = torch.zeros(xs[0].shape[0], weight.shape[0], dtype=precision, device=weight.device)
    shares = _shares(mask, mean, xs, precision)
    for x, block, share in zip(xs, _blocks(weight, xs), shares, strict=True):
        z.addmm_(_weighed(x.to(precision), share), block.to(precision).T)
    if bias is not None:
        z += bias
    u = z
    if norm_weight is not None:
        u = affine(standardise(z, eps)[0], norm_weight, norm_bias)
    y = ACTIVATIONS[activation](u).to(weight.dtype)
    kept = z if keeps_sum(norm_weight, activation) else z.new_empty(0)
    return y, kept.to(sum_dtype(weight, len(z), norm_weight, activation))


def backward(
    grad: Tensor,
    z: Tensor,
    xs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    mean: bool,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    activation: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients that `needs` asks for, in the order weight, bias, norm_weight, norm_bias, *xs."""
    precision = accumulation(weight.dtype)
    shares = _shares(mask, mean, xs, precision)
    need_weight, need_bias, need_norm_weight, need_norm_bias, *need_xs = needs
    gradients = []

    z = z.to(precision)
    du, standard = grad.to(precision), z
    if norm_weight is None:
        dz = GRADIENTS[activation](du, z)
    else:
        standard, rstd = standardise(z, eps)
        du = GRADIENTS[activation](du, affine(standard, norm_weight, norm_bias))
        dz = through_standardise(du * norm_weight.to(precision), standard, rstd)

    if need_weight:
        gradients.append(_weight_gradient(dz, xs, shares).to(weight.dtype))
    if need_bias and bias is not None:
        gradients.append(dz.sum(0).to(bias.dtype))
    if need_norm_weight and norm_weight is not None:
        gradients.append((du * standard).sum(0).to(norm_weight.dtype))
    if need_norm_bias and norm_bias is not None:
        gradients.append(du.sum(0).to(norm_bias.dtype))
    for x, block, share, needed in zip(xs, _blocks(weight, xs), shares, need_xs, strict=True):
        if needed:
            gradients.append((_weighed(dz, share) @ block.to(precision)).to(x.dtype))
    return gradients


def _shares(
    mask: Tensor | None, mean: bool, xs: Sequence[Tensor], precision: torch.dtype
) -> Sequence[Tensor | None]:
    """For each modality what its entries count for, [rows, 1]: 0 is absent; None if all count once."""
    if mask is None and not mean:
        return [None] * len(xs)
    counts = xs[0].new_ones(xs[0].shape[0], len(xs)) if mask is None else mask
    counts = counts.to(precision)
    if mean:
        total = counts.sum(1, keepdim=True)
        # A row without any modality counts for nothing; 0/0 would poison it.
        counts = torch.where(total == 0, 0, counts / torch.where(total == 0, 1, total))
    return counts.split(1, dim=1)


def _blocks(weight: Tensor, xs: Sequence[Tensor]) -> Sequence[Tensor]:
    """The columns of the weight that belong to each modality, [H, K_m]."""
    return weight.split([x.shape[1] for x in xs], dim=1)


def _present(rows: Tensor, share: Tensor | None) -> Tensor:
    """`rows` with zeros where the modality is absent. Never by a product: 0 x NaN is NaN."""
    return rows if share is None else torch.where(share == 0, 0, rows)


def _weighed(rows: Tensor, share: Tensor | None) -> Tensor:
    return rows if share is None else _present(rows, share) * share


def _weight_gradient(dz: Tensor, xs: Sequence[Tensor], shares: Sequence[Tensor | None]) -> Tensor:
    columns = [
        _weighed(dz, share).T @ _present(x, share).to(dz.dtype) for x, share in zip(xs, shares, strict=True)
    ]
    return torch.cat(columns, dim=1)

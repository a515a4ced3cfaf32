"""What a call of low-rank fusion must look like; a wrong one is refused in words. Knows no maths."""

from collections.abc import Sequence

from torch import Tensor

from kernels.shapes import check_vector, shown


def check(
    xs: Sequence[Tensor], factors: Sequence[Tensor], rank_weight: Tensor, bias: Tensor, mask: Tensor | None
) -> None:
    """Raises ValueError that names the argument, what it is and what it should be."""
    if not xs or len(factors) != len(xs):
        raise ValueError(f"there are {len(xs)} xs and {len(factors)} factors; each modality has one of both")
    for m, x in enumerate(xs):
        if x.ndim != 2 or x.shape[0] != xs[0].shape[0] or not x.is_floating_point():
            raise ValueError(
                f"xs[{m}] is {shown(x)}; it is floating point of shape [rows, width], rows as in xs[0]"
            )
        if x.dtype != xs[0].dtype or x.device != xs[0].device:
            raise ValueError(f"xs[{m}] is {shown(x)} and xs[0] is {shown(xs[0])}: they must agree")
    _check_factors(xs, factors)
    check_vector("rank_weight", rank_weight, factors[0].shape[0], xs[0], "xs[0]")
    check_vector("bias", bias, factors[0].shape[2], xs[0], "xs[0]")
    if mask is not None:
        _check_mask(mask, xs)


def _check_factors(xs: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
    first = factors[0]
    if first.ndim != 3:
        raise ValueError(f"factors[0] is {shown(first)}; it has the shape [ranks, width + 1, O]")
    ranks, _, outputs = first.shape
    for m, (x, factor) in enumerate(zip(xs, factors, strict=True)):
        wanted = [ranks, x.shape[1] + 1, outputs]
        if list(factor.shape) != wanted or not factor.is_floating_point():
            raise ValueError(
                f"factors[{m}] is {shown(factor)}; it is floating point of shape [ranks, width + 1, O] = {wanted}"
            )
        if factor.device != x.device:
            raise ValueError(
                f"factors[{m}] is {shown(factor)} and xs[{m}] is {shown(x)}: they must share a device"
            )


def _check_mask(mask: Tensor, xs: Sequence[Tensor]) -> None:
    rows = xs[0].shape[0]
    if mask.ndim != 2 or mask.shape[0] != rows or mask.shape[1] != len(xs):
        raise ValueError(f"mask is {shown(mask)}; it has the shape [rows, modalities] = [{rows}, {len(xs)}]")
    if mask.device != xs[0].device:
        raise ValueError(f"mask is {shown(mask)} and xs[0] is {shown(xs[0])}: they must share a device")
    if mask.requires_grad:
        raise ValueError("mask requires a gradient and none is computed for it; pass mask.detach()")

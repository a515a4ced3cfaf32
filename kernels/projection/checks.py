"""What a call of the masked projection must look like; a wrong one is refused in words. Knows no maths."""

from collections.abc import Sequence

from torch import Tensor

from kernels.activations import ACTIVATIONS
from kernels.shapes import check_vector, shown

COMBINES = ("concat", "mean")


def check(
    xs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    combine: str,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    activation: str,
) -> None:
    """Raises ValueError that names the argument, what it is and what it should be."""
    if combine not in COMBINES:
        raise ValueError(f"combine is {combine!r}; it is one of {', '.join(COMBINES)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; it is one of {', '.join(ACTIVATIONS)}")
    _check_features(xs, weight)
    _check_mask(mask, xs)
    for name, vector in (("bias", bias), ("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if vector is not None:
            check_vector(name, vector, weight.shape[0], weight, "weight")
    if norm_bias is not None and norm_weight is None:
        raise ValueError("norm_bias is given without norm_weight: LayerNorm runs only with a norm_weight")


def _check_features(xs: Sequence[Tensor], weight: Tensor) -> None:
    if not xs:
        raise ValueError("xs is empty; it needs at least one modality")
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(f"weight is {shown(weight)}; it is floating point of shape [H, sum of widths]")
    for m, x in enumerate(xs):
        if x.ndim != 2 or x.shape[0] != xs[0].shape[0]:
            raise ValueError(f"xs[{m}] is {shown(x)}; it has the shape [rows, width], rows as in xs[0]")
        if x.dtype != weight.dtype or x.device != weight.device:
            raise ValueError(f"xs[{m}] is {shown(x)} and weight is {shown(weight)}: they must agree")
    width = sum(x.shape[1] for x in xs)
    if weight.shape[1] != width:
        raise ValueError(f"weight has {weight.shape[1]} columns; the widths of xs add up to {width}")


def _check_mask(mask: Tensor | None, xs: Sequence[Tensor]) -> None:
    if mask is None:
        return
    rows = xs[0].shape[0]
    if mask.ndim != 2 or mask.shape[0] != rows or mask.shape[1] != len(xs):
        raise ValueError(f"mask is {shown(mask)}; it has the shape [rows, modalities] = [{rows}, {len(xs)}]")
    if mask.device != xs[0].device:
        raise ValueError(f"mask is {shown(mask)} and xs[0] is {shown(xs[0])}: they must share a device")
    if mask.requires_grad:
        raise ValueError("mask requires a gradient and none is computed for it; pass mask.detach()")

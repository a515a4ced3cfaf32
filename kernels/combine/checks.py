"""What a call that combines modalities must look like; a wrong one is refused in words. Knows no maths."""

from collections.abc import Sequence

from torch import Tensor

from kernels.activations import ACTIVATIONS
from kernels.shapes import check_vector, shown

MODES = ("sum", "mean", "max", "gated")


def check(
    xs: Sequence[Tensor],
    mask: Tensor | None,
    mode: str,
    gates: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    activation: str,
) -> None:
    """Raises ValueError that names the argument, what it is and what it should be."""
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; it is one of {', '.join(MODES)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; it is one of {', '.join(ACTIVATIONS)}")
    _check_entries(xs)
    _check_mask(mask, xs)
    _check_gates(gates, mode, xs)
    for name, vector in (("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if vector is not None:
            check_vector(name, vector, xs[0].shape[1], xs[0], "xs[0]")
    if norm_bias is not None and norm_weight is None:
        raise ValueError("norm_bias is given without norm_weight: LayerNorm runs only with a norm_weight")


def _check_entries(xs: Sequence[Tensor]) -> None:
    if not xs:
        raise ValueError("xs is empty; it needs at least one modality")
    first = xs[0]
    if first.ndim != 2 or not first.is_floating_point():
        raise ValueError(f"xs[0] is {shown(first)}; it is floating point of shape [rows, H]")
    for m, x in enumerate(xs):
        if x.shape != first.shape or x.dtype != first.dtype or x.device != first.device:
            raise ValueError(f"xs[{m}] is {shown(x)} and xs[0] is {shown(first)}: they must agree")


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


def _check_gates(gates: Tensor | None, mode: str, xs: Sequence[Tensor]) -> None:
    if (gates is None) != (mode != "gated"):
        raise ValueError(f"gates are {'not ' if gates is None else ''}given and mode is {mode!r}")
    if gates is None:
        return
    rows, width = xs[0].shape
    wanted = (rows, len(xs), width)[: gates.ndim]
    if gates.ndim not in (2, 3) or gates.shape != wanted or not gates.is_floating_point():
        raise ValueError(
            f"gates is {shown(gates)}; it is floating point of shape [rows, modalities] = [{rows}, {len(xs)}] "
            f"or [rows, modalities, H] = [{rows}, {len(xs)}, {width}]"
        )
    if gates.device != xs[0].device:
        raise ValueError(f"gates is {shown(gates)} and xs[0] is {shown(xs[0])}: they must share a device")

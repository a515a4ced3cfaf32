"""The masked projection as two ops that torch knows: schema, choice of implementation, shapes. Knows no autograd."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kernels import dispatch
from kernels.projection import reference

_IMPLEMENTATIONS: dict[dispatch.Backend, ModuleType] = {dispatch.Backend.TORCH: reference}

_ARGUMENTS = (
    "Tensor[] xs, Tensor weight, Tensor? bias, Tensor? mask, bool mean, "
    "Tensor? norm_weight, Tensor? norm_bias, float eps, str activation"
)
_SCHEMAS = (
    f"masked_projection({_ARGUMENTS}) -> (Tensor, Tensor)",
    f"masked_projection_backward(Tensor grad, Tensor z, {_ARGUMENTS}, bool[] needs) -> Tensor[]",
)


def _implementation(weight: Tensor) -> ModuleType:
    chosen = dispatch.choose(
        "masked_projection",
        _IMPLEMENTATIONS,
        device=weight.device.type,
        float64=weight.dtype == torch.float64,
    )
    return _IMPLEMENTATIONS[chosen]


# The choice is made in here, at run time: a compiled graph holds the op and not one of its implementations.
# Autocast ends here: an implementation chooses its own precision.
def _forward(xs: Sequence[Tensor], weight: Tensor, *rest: Any) -> Any:
    with torch.autocast(weight.device.type, enabled=False):
        return _implementation(weight).forward(xs, weight, *rest)


def _backward(grad: Tensor, z: Tensor, xs: Sequence[Tensor], weight: Tensor, *rest: Any) -> Any:
    with torch.autocast(weight.device.type, enabled=False):
        return _implementation(weight).backward(grad, z, xs, weight, *rest)


def _forward_shapes(
    xs: Sequence[Tensor],
    weight: Tensor,
    _bias: Tensor | None,
    _mask: Tensor | None,
    _mean: bool,
    norm_weight: Tensor | None,
    _norm_bias: Tensor | None,
    _eps: float,
    activation: str,
) -> tuple[Tensor, Tensor]:
    shape = xs[0].shape[0], weight.shape[0]
    kept = shape if reference.keeps_sum(norm_weight, activation) else (0,)
    return weight.new_empty(shape), weight.new_empty(kept, dtype=reference.accumulation(weight.dtype))


def _backward_shapes(
    _grad: Tensor,
    _z: Tensor,
    xs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    _mask: Tensor | None,
    _mean: bool,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    _eps: float,
    _activation: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    sources = [weight, bias, norm_weight, norm_bias, *xs]
    return [
        source.new_empty(source.shape)
        for source, needed in zip(sources, needs, strict=True)
        if needed and source is not None
    ]


_library = torch.library.Library("plait", "FRAGMENT")
for _schema in _SCHEMAS:
    _library.define(_schema, tags=torch.Tag.pt2_compliant_tag)
for _name, _run, _shapes in (
    ("masked_projection", _forward, _forward_shapes),
    ("masked_projection_backward", _backward, _backward_shapes),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"plait::{_name}", _shapes, lib=_library)

forward = torch.ops.plait.masked_projection.default
backward = torch.ops.plait.masked_projection_backward.default

"""Combining modalities as two ops that torch knows: schema, choice of implementation, shapes. Knows no autograd."""

from collections.abc import Sequence

from torch import Tensor

from kernels import dispatch
from kernels.registry import Half, like_those_needed, register

_IMPLEMENTATIONS = {
    dispatch.Backend.TORCH: "kernels.combine.reference",
    dispatch.Backend.TRITON: "kernels.combine.triton",
}

_OPTIONS = (
    "Tensor? mask, Tensor? gates, str mode, Tensor? norm_weight, Tensor? norm_bias, float eps, str activation"
)


def _forward_shapes(first: Tensor, *_: object) -> Tensor:
    return first.new_empty(first.shape)


def _backward_shapes(
    grad: Tensor,
    _xs: Sequence[Tensor],
    _mask: Tensor | None,
    gates: Tensor | None,
    _mode: str,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    _eps: float,
    _activation: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    # Every modality has the shape and dtype of the output.
    return like_those_needed([gates, norm_weight, norm_bias, *[grad] * (len(needs) - 3)], needs)


# The first modality stands apart: a tensor by itself has to tell the device and dtype that choose an implementation.
forward, backward = register(
    "combine_modalities",
    _IMPLEMENTATIONS,
    forward=Half(f"(Tensor first, Tensor[] others, {_OPTIONS}) -> Tensor", _forward_shapes, anchor=0),
    backward=Half(
        f"(Tensor grad, Tensor[] xs, {_OPTIONS}, bool[] needs) -> Tensor[]", _backward_shapes, anchor=0
    ),
)

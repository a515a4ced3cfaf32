"""The maximum mean discrepancy as two ops that torch knows: schema, choice of implementation, shapes."""

from collections.abc import Sequence

from torch import Tensor

from kernels import dispatch
from kernels.mmd.reference import SCALES
from kernels.norms import accumulation
from kernels.registry import Half, like_those_needed, register

_IMPLEMENTATIONS = {
    dispatch.Backend.TORCH: "kernels.mmd.reference",
    dispatch.Backend.TRITON: "kernels.mmd.triton",
}


def _forward_shapes(
    x: Tensor,
    _y: Tensor,
    _weight_x: Tensor | None,
    _weight_y: Tensor | None,
    _bandwidth: Tensor | None,
    _num_kernels: int,
    _unbiased: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    value = x.new_empty((), dtype=accumulation(x.dtype))
    return value, value.new_empty(x.shape[1]), value.new_empty(len(SCALES))


def _backward_shapes(
    _grad: Tensor,
    _centre: Tensor,
    _scales: Tensor,
    x: Tensor,
    y: Tensor,
    _weight_x: Tensor | None,
    _weight_y: Tensor | None,
    _num_kernels: int,
    needs: Sequence[bool],
) -> list[Tensor]:
    return like_those_needed((x, y), needs)


_SAMPLES = "Tensor x, Tensor y, Tensor? weight_x, Tensor? weight_y"

forward, backward = register(
    "mmd_rbf",
    _IMPLEMENTATIONS,
    forward=Half(
        f"({_SAMPLES}, Tensor? bandwidth, int num_kernels, bool unbiased) -> (Tensor, Tensor, Tensor)",
        _forward_shapes,
        anchor=0,
    ),
    backward=Half(
        f"(Tensor grad, Tensor centre, Tensor scales, {_SAMPLES}, int num_kernels, bool[] needs) -> Tensor[]",
        _backward_shapes,
        anchor=3,
    ),
)

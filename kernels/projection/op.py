"""The masked projection as two ops that torch knows: schema, choice of implementation, shapes. Knows no autograd."""

from collections.abc import Sequence

from torch import Tensor

from kernels import dispatch
from kernels.projection import reference
from kernels.registry import Half, like_those_needed, register

_IMPLEMENTATIONS = {
    dispatch.Backend.TORCH: "kernels.projection.reference",
    dispatch.Backend.TRITON: "kernels.projection.triton",
}

_ARGUMENTS = (
    "Tensor[] xs, Tensor weight, Tensor? bias, Tensor? mask, bool mean, "
    "Tensor? norm_weight, Tensor? norm_bias, float eps, str activation"
)


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
    dtype = reference.sum_dtype(weight, shape[0], norm_weight, activation)
    return weight.new_empty(shape), weight.new_empty(kept, dtype=dtype)


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
    return like_those_needed(sources, needs)


forward, backward = register(
    "masked_projection",
    _IMPLEMENTATIONS,
    forward=Half(f"({_ARGUMENTS}) -> (Tensor, Tensor)", _forward_shapes, anchor=1),
    backward=Half(
        f"(Tensor grad, Tensor z, {_ARGUMENTS}, bool[] needs) -> Tensor[]", _backward_shapes, anchor=3
    ),
)

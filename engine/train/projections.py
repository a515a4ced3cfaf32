"""A column's projection into a fusion's space, read out of one kind of fusion and written into another.

Knows fusions by the names of their weights. All of them but `tensor` bring a tower to `dim` by a norm and a linear layer;
where they differ is where these stand, and whether a norm comes behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Projection:
    """Weights and biases: of the norm before, of the linear layer [dim, width], and of the norm behind, if there is one."""

    before: tuple[Tensor, Tensor]
    linear: tuple[Tensor, Tensor]
    behind: tuple[Tensor, Tensor] | None
    #: The bias is all columns' together: each adds its own.
    shares_bias: bool = False


def read_projection(fusion: Mapping[str, Tensor], place: int) -> Projection | None:
    """Of the column at `place`, out of a fusion's weights: the tensors themselves, not copies."""
    in_series, after_norms = f"towers.{place}.1", f"towers.{place}.0"
    if _is_linear(fusion, in_series):
        return Projection(
            _both(fusion, after_norms), _both(fusion, in_series), _both(fusion, f"towers.{place}.2")
        )
    if f"norms.{place}.weight" not in fusion:
        return None
    before = _both(fusion, f"norms.{place}")
    if _is_linear(fusion, after_norms):
        return Projection(before, _both(fusion, after_norms), _both(fusion, in_series))
    if "weight" in fusion and "bias" in fusion:
        start = sum(fusion[f"norms.{n}.weight"].numel() for n in range(place))
        block = fusion["weight"][:, start : start + before[0].numel()]
        return Projection(before, (block, fusion["bias"]), None, shares_bias=True)
    return None


def write_projection(fusion: Mapping[str, Tensor], place: int, projection: Projection) -> bool:
    """Into the column at `place`, in place; False, and nothing is changed, where the shapes do not fit."""
    own = read_projection(fusion, place)
    if own is None or own.linear[0].shape != projection.linear[0].shape:
        return False
    zeros = torch.zeros_like(projection.linear[1])
    with torch.no_grad():
        own.before[0].copy_(projection.before[0])
        own.before[1].copy_(projection.before[1])
        own.linear[0].copy_(projection.linear[0])
        bias = zeros if projection.shares_bias else projection.linear[1]
        own.linear[1].copy_(own.linear[1] + bias if own.shares_bias else bias)
        if own.behind is not None and projection.behind is not None:
            for mine, given in zip(own.behind, projection.behind, strict=True):
                mine.copy_(given)
    return True


def names_of_projection(fusion: Mapping[str, Tensor], place: int) -> list[str]:
    """The weights that the column's projection is, or is a part of."""
    own = read_projection(fusion, place)
    parts = [*own.before, *own.linear, *(own.behind or ())] if own is not None else []
    memory = {part.untyped_storage().data_ptr() for part in parts}
    return [name for name, weight in fusion.items() if weight.untyped_storage().data_ptr() in memory]


def _is_linear(fusion: Mapping[str, Tensor], name: str) -> bool:
    return f"{name}.weight" in fusion and fusion[f"{name}.weight"].dim() == 2


def _both(fusion: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return fusion[f"{name}.weight"], fusion[f"{name}.bias"]

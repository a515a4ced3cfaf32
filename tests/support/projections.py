"""Cases of the masked projection, and an independent float64 answer to each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from kernels import masked_projection
from support import exact
from support.exact import TOLERANCE, results

__all__ = ["TOLERANCE", "Case", "case", "eager", "errors", "masks", "project", "results"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.nn.Identity(),
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


@dataclass(frozen=True)
class Case:
    xs: Sequence[Tensor]
    weight: Tensor
    bias: Tensor | None = None
    mask: Tensor | None = None
    combine: Literal["concat", "mean"] = "concat"
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    activation: Literal["none", "relu", "gelu", "silu"] = "none"

    @property
    def leaves(self) -> dict[str, Tensor]:
        named = {
            "weight": self.weight,
            "bias": self.bias,
            "norm_weight": self.norm_weight,
            "norm_bias": self.norm_bias,
        }
        named |= {f"xs[{m}]": x for m, x in enumerate(self.xs)}
        return {name: leaf for name, leaf in named.items() if leaf is not None}

    def to(self, dtype: torch.dtype) -> "Case":
        """The same numbers as fresh leaves that require a gradient."""

        def leaf(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor.detach().to(dtype).requires_grad_()

        vectors = {name: leaf(getattr(self, name)) for name in ("weight", "bias", "norm_weight", "norm_bias")}
        return replace(self, xs=[leaf(x) for x in self.xs], **vectors)


def case(
    *,
    rows: int = 37,
    widths: Sequence[int] = (7, 48, 1),
    outputs: int = 130,
    mask: str = "some",
    norm: bool = True,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Case:
    """A case with random numbers that `dtype` holds exactly, each input a leaf that requires a gradient."""
    random = torch.Generator().manual_seed(rows + 1000 * outputs + sum(widths))

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(dtype).requires_grad_()

    return Case(
        xs=[draw(rows, width) for width in widths],
        weight=draw(outputs, sum(widths)),
        bias=draw(outputs),
        mask=masks(mask, rows, len(widths), random),
        norm_weight=draw(outputs) if norm else None,
        norm_bias=draw(outputs) if norm else None,
        **options,
    )


def masks(kind: str, rows: int, count: int, random: torch.Generator) -> Tensor | None:
    """A mask [rows, count] by name; `some` and `weighted` hold a row without any modality."""
    present = torch.rand(rows, count, generator=random) > 0.3
    present[rows // 2 : rows // 2 + 1] = False
    return {
        "absent": None,
        "all": torch.ones(rows, count, dtype=torch.bool),
        "none": torch.zeros(rows, count, dtype=torch.bool),
        "some": present,
        "weighted": present * torch.rand(rows, count, generator=random),
    }[kind]


def project(case: Case) -> Tensor:
    return masked_projection(
        case.xs,
        case.weight,
        case.bias,
        mask=case.mask,
        combine=case.combine,
        norm_weight=case.norm_weight,
        norm_bias=case.norm_bias,
        activation=case.activation,
    )


def eager(case: Case) -> Tensor:
    """The textbook's way, in the dtype of the case: mask, cat, Linear, LayerNorm, activation."""
    xs, mask, dtype = case.xs, case.mask, case.weight.dtype
    shares = torch.ones(len(xs[0]), len(xs), dtype=dtype) if mask is None else mask.to(dtype)
    masked = [torch.where(s == 0, 0, x) * s for x, s in zip(xs, shares.split(1, dim=1), strict=True)]
    z = torch.cat(masked, dim=1) @ case.weight.T
    if case.combine == "mean":
        total = shares.sum(dim=1, keepdim=True)
        z = torch.where(total > 0, z / total.clamp_min(1e-30), 0)
    if case.bias is not None:
        z = z + case.bias
    if case.norm_weight is not None:
        z = functional.layer_norm(z, z.shape[1:], case.norm_weight, case.norm_bias)
    return ACTIVATIONS[case.activation](z)


def errors(found: dict[str, Tensor], case: Case) -> dict[str, float]:
    """The relative error of every result against the textbook in float64."""
    return exact.errors(found, case, eager)

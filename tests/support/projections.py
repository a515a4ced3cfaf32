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

__all__ = [
    "FORMS",
    "SHAPES",
    "TOLERANCE",
    "Case",
    "arguments",
    "case",
    "eager",
    "errors",
    "masks",
    "poisoned",
    "project",
    "results",
]

#: Between them every mask with every way to combine, every activation, with and without LayerNorm.
FORMS: list[dict[str, Any]] = [
    {"mask": "absent", "combine": "concat", "activation": "none", "norm": False},
    {"mask": "absent", "combine": "mean", "activation": "relu", "norm": True},
    {"mask": "all", "combine": "concat", "activation": "silu", "norm": False},
    {"mask": "none", "combine": "mean", "activation": "none", "norm": True},
    {"mask": "some", "combine": "concat", "activation": "gelu", "norm": True},
    {"mask": "some", "combine": "mean", "activation": "relu", "norm": False},
    {"mask": "weighted", "combine": "concat", "activation": "none", "norm": False},
    {"mask": "weighted", "combine": "mean", "activation": "silu", "norm": True},
    {"mask": "weighted", "combine": "mean", "activation": "none", "norm": False},
]

#: Rows, widths, outputs.
SHAPES: list[tuple[int, tuple[int, ...], int]] = [
    (1, (1,), 5),
    (3, (769, 48), 5),
    (37, (7, 48, 1, 16, 3, 32), 130),
    (37, (3, 0, 5), 5),
    (37, (2,) * 12, 70),
]

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

    def on(self, device: str) -> "Case":
        """The same on another device, as fresh leaves."""
        moved = {name: leaf.detach().to(device).requires_grad_() for name, leaf in self.leaves.items()}
        xs = [moved.pop(f"xs[{m}]") for m in range(len(self.xs))]
        return replace(self, xs=xs, mask=None if self.mask is None else self.mask.to(device), **moved)


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


def poisoned(asked: Case, poison: float) -> Case:
    """The same case with `poison` in every masked entry."""
    assert asked.mask is not None
    xs = [
        torch.where(asked.mask[:, m : m + 1] == 0, poison, x.detach()).requires_grad_()
        for m, x in enumerate(asked.xs)
    ]
    return replace(asked, xs=xs)


def arguments(asked: Case) -> tuple[Any, ...]:
    """The case as an implementation takes it, without gradients: autograd lies outside of the op."""
    plain = {name: leaf.detach() for name, leaf in asked.leaves.items()}
    return (
        [x.detach() for x in asked.xs],
        plain["weight"],
        plain.get("bias"),
        asked.mask,
        asked.combine == "mean",
        plain.get("norm_weight"),
        plain.get("norm_bias"),
        1e-5,
        asked.activation,
    )


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
    shares = case.weight.new_ones(len(xs[0]), len(xs)) if mask is None else mask.to(dtype)
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

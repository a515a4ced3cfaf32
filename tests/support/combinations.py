"""Cases of combining modalities, and an independent float64 answer to each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from kernels import combine_modalities
from support import exact
from support.exact import TOLERANCE, results
from support.projections import ACTIVATIONS, masks

__all__ = [
    "TOLERANCE", "Case", "case", "combine", "combine_on", "errors", "poisoned", "results", "textbook", "wrong",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    xs: Sequence[Tensor]
    mask: Tensor | None = None
    mode: Literal["sum", "mean", "max", "gated"] = "sum"
    gates: Tensor | None = None
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    activation: Literal["none", "relu", "gelu", "silu"] = "none"

    @property
    def leaves(self) -> dict[str, Tensor]:
        named = {"gates": self.gates, "norm_weight": self.norm_weight, "norm_bias": self.norm_bias}
        named |= {f"xs[{m}]": x for m, x in enumerate(self.xs)}
        return {name: leaf for name, leaf in named.items() if leaf is not None}

    def to(self, dtype: torch.dtype) -> "Case":
        """The same numbers as fresh leaves that require a gradient."""
        return self.changed(lambda leaf: leaf.detach().to(dtype).requires_grad_())

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Case":
        """The same call with other leaves."""
        vectors = {name: leaf for name, leaf in self.leaves.items() if not name.startswith("xs[")}
        return replace(
            self,
            xs=[change(x) for x in self.xs],
            **{name: change(leaf) for name, leaf in vectors.items()},
        )


def case(
    *,
    rows: int = 37,
    modalities: int = 3,
    width: int = 48,
    mask: str = "some",
    gates: str = "",
    norm: bool = True,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Case:
    """A case with random numbers that `dtype` holds exactly, each input a leaf that requires a gradient.

    `gates` are those of the mode `gated`: one number a `modality` or one an `entry`.
    """
    random = torch.Generator().manual_seed(rows + 1000 * width + modalities)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(dtype).requires_grad_()

    shape = {"modality": (rows, modalities), "entry": (rows, modalities, width)}.get(gates)
    return Case(
        xs=[draw(rows, width) for _ in range(modalities)],
        mask=masks(mask, rows, modalities, random),
        mode="gated" if gates else options.pop("mode", "sum"),
        gates=draw(*shape) if shape else None,
        norm_weight=draw(width) if norm else None,
        norm_bias=draw(width) if norm else None,
        **options,
    )


def poisoned(asked: Case, poison: float) -> Case:
    """The same case with `poison` in every masked entry and its gates."""
    assert asked.mask is not None
    absent = asked.mask == 0
    changed: dict[str, Any] = {
        "xs": [
            torch.where(absent[:, m : m + 1], poison, x.detach()).requires_grad_()
            for m, x in enumerate(asked.xs)
        ]
    }
    if asked.gates is not None:
        at = absent if asked.gates.ndim == 2 else absent.unsqueeze(2)
        changed["gates"] = torch.where(at, poison, asked.gates.detach()).requires_grad_()
    return replace(asked, **changed)


def combine(case: Case) -> Tensor:
    return combine_modalities(
        case.xs,
        mask=case.mask,
        mode=case.mode,
        gates=case.gates,
        norm_weight=case.norm_weight,
        norm_bias=case.norm_bias,
        activation=case.activation,
    )


def combine_on(device: str) -> Callable[[Case], Tensor]:
    """The same on `device`: leaves, gradients and output stay on the CPU."""

    def run(case: Case) -> Tensor:
        moved = case.changed(lambda leaf: leaf.to(device))
        return combine(replace(moved, mask=None if case.mask is None else case.mask.to(device))).cpu()

    return run


def textbook(case: Case) -> Tensor:
    """Row by row, in the dtype of the case: pick the present ones, combine, LayerNorm, activation."""
    rows, width = case.xs[0].shape
    combined = [_combined(case, row) for row in range(rows)]
    z = torch.stack(combined) if rows else sum(case.xs, torch.zeros(0, width, dtype=case.xs[0].dtype))
    if case.norm_weight is not None:
        z = functional.layer_norm(z, (width,), case.norm_weight, case.norm_bias)
    return ACTIVATIONS[case.activation](z)


def _combined(case: Case, row: int) -> Tensor:
    weights = torch.ones(len(case.xs)) if case.mask is None else case.mask[row]
    here = [m for m, weight in enumerate(weights.tolist()) if weight]
    if not here:
        return case.xs[0][row] * 0
    x = torch.stack([case.xs[m][row] for m in here])
    counts = weights[here].to(x.dtype).unsqueeze(1)
    if case.mode == "max":
        return x.max(0).values
    if case.gates is not None:
        logits = case.gates[row, here]
        counts = counts * (logits if logits.ndim == 2 else logits.unsqueeze(1)).exp()
    shares = counts if case.mode == "sum" else counts / counts.sum(0)
    return (shares * x).sum(0)


#: The relative error of every result against the textbook in float64.
errors = partial(exact.errors, textbook=textbook)


def wrong(asked: Case, run: Callable[[Case], Tensor] = combine) -> dict[str, float]:
    """The results whose error is above the tolerance."""
    tolerance = TOLERANCE[asked.xs[0].dtype]
    return {name: e for name, e in errors(results(run, asked), asked).items() if not e <= tolerance}

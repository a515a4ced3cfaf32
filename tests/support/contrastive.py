"""Cases of the contrastive losses, and an independent float64 answer to each."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels import clip_loss, siglip_loss
from support import exact
from support.exact import TOLERANCE, results

__all__ = [
    "LOSSES",
    "TOLERANCE",
    "Case",
    "case",
    "errors",
    "loss",
    "results",
    "results_on",
    "textbook",
    "wrong",
]

LOSSES = ("clip", "siglip")


@dataclass(frozen=True)
class Case:
    image: Tensor
    text: Tensor
    logit_scale: Tensor
    #: For SigLIP; without it the loss is CLIP's.
    logit_bias: Tensor | None = None
    #: `chunk_bytes`, `logits_budget`, `group`.
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def leaves(self) -> dict[str, Tensor]:
        named = {"image": self.image, "text": self.text, "logit_scale": self.logit_scale}
        return named if self.logit_bias is None else named | {"logit_bias": self.logit_bias}

    def to(self, dtype: torch.dtype | None = None, device: str | None = None) -> "Case":
        """The same numbers as fresh leaves that require a gradient."""
        moved = {
            name: leaf.detach().to(dtype=dtype, device=device, copy=True).requires_grad_()
            for name, leaf in self.leaves.items()
        }
        return replace(self, **moved)

    def rows(self, chosen: Any) -> "Case":
        """Some of the rows, or the same in another order, as fresh leaves."""
        own = {name: leaf.detach().clone().requires_grad_() for name, leaf in self.leaves.items()}
        for name in ("image", "text"):
            own[name] = own[name].detach()[chosen].clone().requires_grad_()
        return replace(self, **own)


def case(
    kind: str = "clip",
    *,
    rows: int = 37,
    width: int = 16,
    dtype: torch.dtype = torch.float32,
    scale: float = 14.25,
    bias: float = -10.0,
    alike: float = 1.0,
    **options: Any,
) -> Case:
    """A case with random rows of length 1 that `dtype` holds exactly, each input a leaf that requires a gradient.

    Matching rows have `alike` times one vector in common, beside one of their own.
    """
    random = torch.Generator().manual_seed(rows + 1000 * width)
    common = alike * torch.randn(rows, width, generator=random)

    def draw() -> Tensor:
        mixed = common + torch.randn(rows, width, generator=random)
        return functional.normalize(mixed, dim=1).to(dtype).requires_grad_()

    def scalar(number: float) -> Tensor:
        return torch.tensor(number, dtype=torch.promote_types(dtype, torch.float32)).requires_grad_()

    logit_bias = scalar(bias) if kind == "siglip" else None
    return Case(draw(), draw(), scalar(scale), logit_bias, options)


def loss(case: Case) -> Tensor:
    if case.logit_bias is None:
        return clip_loss(case.image, case.text, case.logit_scale, **case.options)
    return siglip_loss(case.image, case.text, case.logit_scale, case.logit_bias, **case.options)


def textbook(case: Case) -> Tensor:
    """With all logits in memory, in the dtype of the case: as in the papers' listings."""
    logits = case.logit_scale.to(case.image.dtype) * case.image @ case.text.T
    rows = len(logits)
    if case.logit_bias is None:
        matching = torch.arange(rows, device=logits.device)
        by_row, by_column = (functional.cross_entropy(s, matching) for s in (logits, logits.T))
        return (by_row + by_column) / 2
    signs = 2 * torch.eye(rows, dtype=logits.dtype, device=logits.device) - 1
    pairs = -functional.logsigmoid(signs * (logits + case.logit_bias.to(logits.dtype)))
    return pairs.sum() / rows


def errors(found: dict[str, Tensor], case: Case) -> dict[str, float]:
    """The relative error of every result against the textbook in float64.

    One pair alone has a loss of 0 and no gradient: there the error is the absolute one.
    """
    return exact.errors(found, case, textbook)


def results_on(device: str, asked: Case) -> dict[str, Tensor]:
    """`results(loss, asked)` as another device gives them, brought back to the CPU."""
    there = asked.to(device=device)
    y = loss(there)
    upstream = torch.tensor(-1.0, dtype=torch.float64).cos().to(y)
    gradients = torch.autograd.grad(y, list(there.leaves.values()), upstream)
    found = {"output": y.detach()} | dict(zip(there.leaves, gradients, strict=True))
    return {name: result.cpu() for name, result in found.items()}


def wrong(found: dict[str, Tensor], asked: Case) -> dict[str, float]:
    """The results whose error is above the tolerance of their dtype."""
    tolerance = TOLERANCE[asked.image.dtype]
    return {name: error for name, error in errors(found, asked).items() if not error <= tolerance}

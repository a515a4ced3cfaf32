"""How far an op's output and gradients are from an independent answer in float64."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

#: The greatest relative error of an output or a gradient against float64.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


class Case(Protocol):
    """A call of an op."""

    @property
    def leaves(self) -> dict[str, Tensor]:
        """The inputs that may get a gradient, by name."""

    def to(self, dtype: torch.dtype) -> Any:
        """The same numbers as fresh leaves that require a gradient."""


def results(run: Callable[[Any], Tensor], case: Case, *, may_leave_out: bool = False) -> dict[str, Tensor]:
    """The output of `run` and the gradient of every leaf, under a fixed uneven upstream gradient.

    A textbook may leave an input out that has no effect: its gradient is then 0.
    """
    y = run(case)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).cos()
    wanted = {name: leaf for name, leaf in case.leaves.items() if leaf.requires_grad}
    gradients = torch.autograd.grad(y, list(wanted.values()), upstream.to(y), materialize_grads=may_leave_out)
    return {"output": y.detach()} | dict(zip(wanted, gradients, strict=True))


def errors(found: dict[str, Tensor], case: Case, textbook: Callable[[Any], Tensor]) -> dict[str, float]:
    """The relative error of every result against the textbook's in float64."""
    exact = results(textbook, case.to(torch.float64), may_leave_out=True)
    return {name: _error(found[name], exact[name]) for name in found}


def _error(found: Tensor, exact: Tensor) -> float:
    scale = exact.norm()
    wrong = (found.double() - exact).norm()
    return float(wrong / scale) if scale > 0 else float(wrong)

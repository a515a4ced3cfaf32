"""The metrics that a report compares models by, one rule for each task; cheap enough for a hundred comparisons."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_f1_score

from domain.tasks import LESS_IS_BETTER, METRICS, Task
from engine.data.targets import Goal

#: Of a metric's name, as the database keeps it.
MOST_LETTERS = 100

#: [resamples, rows] how often each row counts -> the metric of each resample.
Weighed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Headline:
    """A task's first metric, and how to have it of chosen rows."""

    name: str
    #: Outputs and targets -> `name` and those that are told beside it.
    measure: Callable[[Tensor, Tensor], dict[str, float]]
    #: Outputs and targets -> the metric under weights of rows.
    weighed: Callable[[Tensor, Tensor], Weighed]

    @property
    def sign(self) -> int:
        """Of a difference that is a gain."""
        return -1 if self.name in LESS_IS_BETTER else 1


def headline(goal: Goal) -> Headline | None:
    """None for a task whose answers are neither classes, labels nor numbers."""
    match goal.task:
        case Task.CLASSIFICATION:
            return Headline(METRICS[goal.task][0], _of_classes, _accuracy)
        case Task.MULTILABEL:
            return Headline(METRICS[goal.task][0], _of_labels, _f1_macro)
        case Task.REGRESSION:
            return _of_numbers(goal)
        case _:
            return None


def _of_classes(logits: Tensor, targets: Tensor) -> dict[str, float]:
    right = (logits.argmax(1) == targets).double().mean().item()
    f1 = multiclass_f1_score(logits, targets, logits.shape[1], average="macro").item()
    return {"accuracy": right, "f1_macro": f1}


def _accuracy(logits: Tensor, targets: Tensor) -> Weighed:
    right = (logits.argmax(1) == targets).double()
    return lambda weights: weights @ right / weights.sum(1)


def _of_labels(logits: Tensor, targets: Tensor) -> dict[str, float]:
    once = torch.ones(1, len(targets), dtype=torch.double)
    return {
        "f1_macro": _f1_macro(logits, targets)(once).item(),
        "exact_match": ((logits > 0) == targets).all(1).double().mean().item(),
    }


def _f1_macro(logits: Tensor, targets: Tensor) -> Weighed:
    """The mean over all labels; one that is neither true nor predicted counts 0, as torchmetrics has it."""
    said = logits > 0
    hits, errors = (said & targets).double(), (said ^ targets).double()

    def measure(weights: Tensor) -> Tensor:
        twice = 2 * (weights @ hits)
        return (twice / (twice + weights @ errors).clamp(min=torch.finfo(torch.double).tiny)).mean(1)

    return measure


def _of_numbers(goal: Goal) -> Headline:
    assert goal.scale is not None
    # In the data's own unit, without its mean, which would eat up digits.
    unit = goal.scale.std

    def errors(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.squeeze(1).double() - targets.double()) * unit

    def measure(outputs: Tensor, targets: Tensor) -> dict[str, float]:
        off = errors(outputs, targets)
        return {"rmse": off.square().mean().sqrt().item(), "mae": off.abs().mean().item()}

    def rmse(outputs: Tensor, targets: Tensor) -> Weighed:
        squares = errors(outputs, targets).square()
        return lambda weights: (weights @ squares / weights.sum(1)).sqrt()

    return Headline(METRICS[goal.task][0], measure, rmse)


def spread(rows: int, most: int) -> Tensor:
    """`most` of `rows` row numbers, evenly taken; all where there are no more. Rising."""
    if rows <= most:
        return torch.arange(rows)
    return torch.arange(most) * rows // most


def metric_of(name: str, condition: str, column: str) -> str:
    """`f1_macro@missing:photo`: a metric's name under a condition, as a database can keep it."""
    return shortened(f"{name}@{condition}:{column}")


def shortened(name: str, most: int = MOST_LETTERS, *, is_marked: bool = False) -> str:
    """`name` in at most so many printable letters. One that had to be changed, or `is_marked`, ends with its hash."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    if plain == name and len(name) <= most and not is_marked:
        return name
    # Two long names that begin alike stay two.
    told = sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{plain[: most - len(told) - 1]}…{told}"

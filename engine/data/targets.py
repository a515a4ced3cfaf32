"""What labels are to a network: a class's place, the places of several, a standardised number, or a text to write."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from domain.manifest import ColumnType
from domain.tasks import Task
from engine.data.classes import Label, names_of
from engine.data.hashes import hash64

#: In the place of a token that nothing is learned from.
IGNORED = -100


@dataclass(frozen=True)
class Scale:
    """A regression learns its targets with mean 0 and deviation 1; this leads back to their own unit."""

    mean: float
    std: float

    def standardised(self, value: float) -> float:
        return (value - self.mean) / self.std

    def undone(self, values: Tensor) -> Tensor:
        """In float64: a large mean would eat up the digits of float32."""
        return values.double() * self.std + self.mean


@dataclass(frozen=True)
class Goal:
    """What a model answers."""

    task: Task
    #: In the order of the head's outputs; none for a regression or a generation.
    classes: list[str]
    #: Of a regression.
    scale: Scale | None = None
    #: Of a contrastive model: what its metrics call each column, in the network's order.
    columns: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        return len(self.classes) or 1


def goal_of(
    task: Task, labels: Sequence[Label], scaled_by: Sequence[Label], columns: Mapping[str, ColumnType]
) -> Goal:
    """The classes among `labels`, or of a regression the scale of `scaled_by` (the rows that train).

    `columns` are those that towers read.
    """
    if task is Task.REGRESSION:
        return Goal(task, [], _scale([label for label in scaled_by if isinstance(label, float)]))
    if task is Task.CONTRASTIVE:
        return Goal(task, [], columns=short_names(columns))
    if task is Task.GENERATION:
        return Goal(task, [])
    return Goal(task, sorted({name for label in labels for name in names_of(label)}))


def short_names(columns: Mapping[str, ColumnType]) -> tuple[str, ...]:
    """Of the columns, sorted: the first letter of its type (`i`), or its name where another one has that type.

    All have their own names where two would be called the same.
    """
    kinds = Counter(columns.values())
    short = tuple(str(kind)[0] if kinds[kind] == 1 else name for name, kind in sorted(columns.items()))
    return short if len(set(short)) == len(short) else tuple(sorted(columns))


def _scale(values: Sequence[float]) -> Scale:
    mean = statistics.fmean(values)
    std = math.sqrt(statistics.fmean((value - mean) ** 2 for value in values))
    # Equal targets have no deviation; a model of them has nothing to learn, and must not divide by it.
    return Scale(mean, std or 1.0)


def target_tensor(goal: Goal, labels: Sequence[Label]) -> Tensor:
    """Places [rows], many-hot [rows, classes] as bool, standardised numbers [rows], or texts' hashes [rows].

    What a text's tokens are is its language model's to say: the hash tells whether it is the same text.

    Raises KeyError with a class that `goal` does not know.
    """
    if goal.task is Task.CONTRASTIVE:
        # What belongs together stands in a row.
        return torch.zeros(len(labels), dtype=torch.long)
    if goal.scale is not None:
        numbers = [label for label in labels if isinstance(label, float)]
        return torch.tensor([goal.scale.standardised(number) for number in numbers], dtype=torch.float)
    if goal.task is Task.GENERATION:
        return torch.tensor(
            [_signed(hash64(str(label).encode("utf-8", "surrogatepass"))) for label in labels],
            dtype=torch.long,
        )
    place = {name: i for i, name in enumerate(goal.classes)}
    if goal.task is Task.CLASSIFICATION:
        return torch.tensor([place[str(label)] for label in labels], dtype=torch.long)
    hot = torch.zeros(len(labels), len(place), dtype=torch.bool)
    for row, label in zip(hot, labels, strict=True):
        row[[place[name] for name in names_of(label)]] = True
    return hot


def _signed(number: int) -> int:
    """Eight bytes as torch holds them."""
    return number - (1 << 64) if number >> 63 else number

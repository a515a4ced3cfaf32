"""What number and category columns are measured by: mean and deviation, and the values that were seen.

All of the training rows alone; a model keeps them, and reads other rows with them. Loads no torch.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.manifest import ColumnType
from engine.data.profile import MOST_VALUES

#: So many times the middle half's width away from it, a number counts as the nearest one that is not.
_FENCE = 10.0
#: Deviations beyond which a number is brought nearer, smoothly.
_CLIP = 3.0


@dataclass(frozen=True)
class NumberStatistics:
    """Mean and deviation of a column's training rows."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "NumberStatistics":
        """Of none: 0 and 1. One row of 1e300 must not make all others equal, so far outliers are brought near."""
        if not values:
            return cls(0.0, 1.0)
        numbers = _fenced(np.asarray(values, np.float64))
        if numbers.min() == numbers.max():
            return cls(float(numbers[0]), 1.0)
        # In units of the largest one, as squares of 1e300 are no numbers.
        unit = float(np.abs(numbers).max())
        std = float((numbers / unit).std()) * unit
        return cls(float((numbers / unit).mean()) * unit, std if std >= np.finfo(np.float64).tiny else 1.0)

    def standardised(self, values: Sequence[float]) -> NDArray[np.float32]:
        """Deviations from the mean, [values]; far ones smoothly within 3 (Holzmüller et al. 2024, arXiv:2407.04491)."""
        with np.errstate(over="ignore"):
            z = (np.asarray(values, np.float64) - self.mean) / self.std
        z = np.clip(z, -1e6, 1e6)
        return (z / np.sqrt(1 + (z / _CLIP) ** 2)).astype(np.float32)


def _fenced(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = np.median(numbers)
    # Where half of all numbers are equal, as zeros often are, the others tell the width.
    low, high, width = _middle_half(numbers)
    if width == 0 and (numbers != middle).any():
        low, high, width = _middle_half(numbers[numbers != middle])
    with np.errstate(over="ignore", invalid="ignore"):
        fences = min(low - _FENCE * width, middle), max(high + _FENCE * width, middle)
    # Of the largest numbers there is no width, and of one other value none either.
    return np.clip(numbers, *fences) if width > 0 and np.isfinite(fences).all() else numbers


def _middle_half(numbers: NDArray[np.float64]) -> tuple[float, float, float]:
    """The quartiles, and what lies between."""
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.quantile(numbers, [0.25, 0.75]).tolist()
    return low, high, high - low


@dataclass(frozen=True)
class Vocabulary:
    """The values of a category column's training rows, sorted; of too many, the most frequent ones."""

    values: tuple[str, ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Vocabulary":
        counts = Counter(words)
        frequent = sorted(counts, key=lambda word: (-counts[word], word))[:MOST_VALUES]
        return cls(tuple(sorted(frequent)))

    @cached_property
    def _place(self) -> dict[str, int]:
        return {word: n for n, word in enumerate(self.values, start=1)}

    def places(self, words: Sequence[str]) -> list[int]:
        """Of each word: from 1; 0 for one that is not among the values."""
        return [self._place.get(word, 0) for word in words]


Statistics = NumberStatistics | Vocabulary


def measured(values: Sequence[Any], kind: ColumnType) -> Statistics:
    """Of a column's values in training rows, less those that are missing."""
    if kind is ColumnType.NUMBER:
        return NumberStatistics.of([float(value) for value in values])
    return Vocabulary.of([str(value) for value in values])


def as_json(statistics: Statistics) -> dict[str, Any]:
    return asdict(statistics)


def read_statistics(stored: Mapping[str, Any], kind: ColumnType) -> Statistics:
    """What `as_json` made. Raises KeyError, TypeError or ValueError for anything else."""
    if kind is ColumnType.NUMBER:
        return NumberStatistics(float(stored["mean"]), float(stored["std"]))
    return Vocabulary(tuple(str(value) for value in stored["values"]))

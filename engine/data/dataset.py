"""Rows with their labels, and the two ways to make a column's input of them: cached features, or live.

Knows files through `engine.data.manifest` only, and no training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from domain.errors import EngineError
from domain.manifest import Code
from engine.data.classes import Label
from engine.data.collate import Batch
from engine.data.decode import Undecodable
from engine.data.manifest import Dataset, MediaRef, Row
from engine.data.values import Read, Reading
from engine.models.encoders import Encoder
from engine.models.multimodal import Live
from engine.models.parts import FRAMES, VECTORS


@dataclass(frozen=True)
class Example:
    """One row of one file, and its label as the task reads it."""

    dataset: Dataset
    row: Row
    label: Label

    def has(self, column: str) -> bool:
        return self.row.values.get(column) is not None

    def bytes(self, column: str) -> bytes:
        """What the cell holds: a file's bytes, or a text's."""
        value = self.row.values[column]
        try:
            return self.dataset.read(value) if isinstance(value, MediaRef) else str(value).encode()
        except (OSError, KeyError) as error:
            raise self._unusable(Code.MISSING_MEDIA, column, str(error)) from error

    def value(self, column: str, reading: Reading, read: Read) -> Any:
        """What the cell means to an encoder. An unreadable one ends the job: nothing is put in its place."""
        try:
            return read(self.bytes(column), reading)
        except Undecodable as error:
            raise self._unusable(error.code, column, error.message) from error

    def _unusable(self, code: str, column: str, why: str) -> EngineError:
        return EngineError(code, f"line {self.row.line}, column '{column}': {why}", param=column)


class Column(Protocol):
    """One tower's input for chosen rows."""

    def fetch(self, index: Tensor) -> Tensor | Live: ...

    def part(self, rows: range) -> "Column": ...


@dataclass(frozen=True)
class CachedColumn:
    """A frozen tower: its features, read back from the cache; zeros where the row has none."""

    features: Tensor

    def fetch(self, index: Tensor) -> Tensor:
        return self.features[index]

    def part(self, rows: range) -> "CachedColumn":
        return CachedColumn(self.features[rows.start : rows.stop])


@dataclass(frozen=True)
class CachedFrames:
    """A frozen tower whose pool is trained: the vectors of all rows' frames, [all frames, width], from the cache."""

    vectors: Tensor
    #: Of each row: its first vector, and how many it has; none where it is missing. Rows may share theirs.
    starts: Tensor
    counts: Tensor

    def fetch(self, index: Tensor) -> Live:
        starts, counts = self.starts[index].tolist(), self.counts[index]
        pieces = [self.vectors[s : s + n] for s, n in zip(starts, counts.tolist(), strict=True)]
        rows = counts.nonzero().flatten()
        inputs = {VECTORS: torch.cat(pieces), FRAMES: counts[rows]} if len(rows) else {}
        return Live(inputs, rows)

    def part(self, rows: range) -> "CachedFrames":
        chosen = slice(rows.start, rows.stop)
        return CachedFrames(self.vectors, self.starts[chosen], self.counts[chosen])


@dataclass(frozen=True)
class LiveColumn:
    """A trained tower: decoded and prepared anew each time, from any thread."""

    examples: Sequence[Example]
    name: str
    encoder: Encoder
    read: Read

    def fetch(self, index: Tensor) -> Live:
        chosen = [self.examples[i] for i in index.tolist()]
        rows = [place for place, example in enumerate(chosen) if example.has(self.name)]
        values = [chosen[place].value(self.name, self.encoder.reading, self.read) for place in rows]
        inputs = self.encoder.prepare(values) if values else {}
        return Live(inputs, torch.tensor(rows, dtype=torch.long))

    def part(self, rows: range) -> "LiveColumn":
        return LiveColumn(self.examples[rows.start : rows.stop], self.name, self.encoder, self.read)


@dataclass(frozen=True)
class Examples:
    """One split, ready to be fetched by row numbers."""

    columns: Mapping[str, Column]
    present: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def is_cached(self) -> bool:
        return not any(isinstance(column, LiveColumn) for column in self.columns.values())

    @property
    def has_frames(self) -> bool:
        """Cached features of a row may be as large as a film's frames are many."""
        return any(isinstance(column, CachedFrames) for column in self.columns.values())

    def batch(self, index: Tensor) -> Batch:
        inputs = {name: column.fetch(index) for name, column in self.columns.items()}
        return Batch(inputs, self.present[index], self.targets[index])

    def part(self, rows: range) -> "Examples":
        chosen = slice(rows.start, rows.stop)
        columns = {name: column.part(rows) for name, column in self.columns.items()}
        return Examples(columns, self.present[chosen], self.targets[chosen])


def gather(examples: Sequence[Example], columns: Mapping[str, Column], targets: Tensor) -> Examples:
    """`examples` with their columns in the network's order (sorted)."""
    names = sorted(columns)
    present = torch.tensor([[e.has(name) for name in names] for e in examples], dtype=torch.bool)
    return Examples({name: columns[name] for name in names}, present.view(-1, len(names)), targets)

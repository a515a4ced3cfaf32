"""Rows with their labels, and the two ways to make a column's input of them: cached features, or live.

Knows files through `engine.data.manifest` only, and no training.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from domain.errors import EngineError
from domain.manifest import Code
from engine.data.classes import Label
from engine.data.collate import Batch
from engine.data.decode import Undecodable
from engine.data.manifest import Dataset, MediaRef, Row
from engine.data.media_cache import CachedRead, is_worth
from engine.data.values import Read, Reading
from engine.models.encoders import Encoder
from engine.models.multimodal import Live


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
class LiveColumn:
    """A trained tower: read and prepared anew each time, from any thread."""

    examples: Sequence[Example]
    name: str
    encoder: Encoder
    read: Read
    #: sha256 of the cells that were read, by row: what the cache has of them needs no bytes any more. Empty where it
    #: keeps nothing.
    digests: dict[int, bytes] = field(default_factory=dict, repr=False)

    def fetch(self, index: Tensor) -> Live:
        chosen = [self.examples[i] for i in index.tolist()]
        rows = [place for place, example in enumerate(chosen) if example.has(self.name)]
        values = [self._value(int(index[place])) for place in rows]
        inputs = self.encoder.prepare(values) if values else {}
        return Live(inputs, torch.tensor(rows, dtype=torch.long))

    def _value(self, row: int) -> Any:
        example, read, reading = self.examples[row], self.read, self.encoder.reading
        if not isinstance(read, CachedRead) or reading.kind not in read.kinds:
            return example.value(self.name, reading, read)
        seen = self.digests.get(row)
        if seen == b"":
            return example.value(self.name, reading, read.read)
        value = read.cache.find(seen, reading) if seen else None
        return self._read(row, read) if value is None else value

    def _read(self, row: int, read: CachedRead) -> Any:
        def noting(data: bytes, reading: Reading) -> Any:
            digest = hashlib.sha256(data).digest()
            value = read.known(data, digest, reading)
            self.digests[row] = digest if is_worth(data, reading, value) else b""
            return value

        return self.examples[row].value(self.name, self.encoder.reading, noting)

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
        return all(isinstance(column, CachedColumn) for column in self.columns.values())

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

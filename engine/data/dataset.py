"""Rows with their labels, and the ways to make a column's input of them: cached features, live, or plain values.

Knows files through `engine.data.manifest` only, and no training.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol

import torch
from torch import Tensor

from domain.errors import EngineError
from domain.manifest import Code
from engine.data.augment import Amounts, Change, change_of
from engine.data.classes import Label
from engine.data.collate import Batch
from engine.data.decode import Undecodable
from engine.data.manifest import Dataset, MediaRef, Row, Several
from engine.data.media_cache import CachedRead, is_worth
from engine.data.references import shown
from engine.data.several import together
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

    def count(self, column: str) -> int:
        """How many files, or texts, the cell holds."""
        value = self.row.values.get(column)
        return len(value.parts) if isinstance(value, Several) else int(value is not None)

    def content_key(self, column: str) -> str:
        """Names what the cell holds: equal contents in the same order have equal keys."""
        digests = [sha256(data).digest() for _, data in self._contents(column)]
        return (digests[0] if len(digests) == 1 else together(digests)).hex()

    def values(self, column: str, reading: Reading, read: Read) -> Iterator[Any]:
        """What each part of the cell means to an encoder. An unreadable one ends the job: nothing is put in its place."""
        for name, data in self._contents(column):
            try:
                yield read(data, reading)
            except Undecodable as error:
                raise self._unusable(error.code, column, f"{name}{error.message}") from error

    def _contents(self, column: str) -> Iterator[tuple[str, bytes]]:
        """Each part's bytes, a file's or a text's; of several also what an error calls it."""
        value = self.row.values[column]
        several = isinstance(value, Several)
        for part in value.parts if isinstance(value, Several) else (value,):
            if not isinstance(part, MediaRef):
                yield "", str(part).encode()
                continue
            name = f"'{shown(part.name)}': " if several else ""
            try:
                yield name, self.dataset.read(part)
            except (OSError, KeyError) as error:
                raise self._unusable(Code.MISSING_MEDIA, column, f"{name}{error}") from error

    def _unusable(self, code: str, column: str, why: str) -> EngineError:
        return EngineError(code, f"line {self.row.line}, column '{column}': {why}", param=column)


def announce(examples: Sequence[Example], column: str) -> None:
    """Before their cells are read: uploaded files that they name are asked for together."""
    for dataset in {id(example.dataset): example.dataset for example in examples}.values():
        dataset.announce(e.row.values.get(column) for e in examples if e.dataset is dataset)


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
    """A frozen tower whose pool is trained, or whose tokens are read: all rows' frames or tokens, [all, width], from the
    cache."""

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
    """A trained tower: read and prepared anew each time, from any thread."""

    examples: Sequence[Example]
    name: str
    encoder: Encoder
    read: Read
    #: sha256 of each part of the cells that were read, by row: what the cache has of them needs no bytes any more. Empty
    #: where it keeps nothing.
    digests: dict[int, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    #: What is done to each value before the encoder prepares it; None: nothing.
    change: Change | None = None

    def fetch(self, index: Tensor) -> Live:
        chosen = [self.examples[i] for i in index.tolist()]
        rows = [place for place, example in enumerate(chosen) if example.has(self.name)]
        announce(chosen, self.name)
        values = [part for place in rows for part in self._values(int(index[place]))]
        inputs = self.encoder.prepare(values) if values else {}
        counts = [chosen[place].count(self.name) for place in rows]
        several = torch.tensor(counts) if len(values) > len(rows) else None
        return Live(inputs, torch.tensor(rows, dtype=torch.long), several)

    def _values(self, row: int) -> list[Any]:
        """What each part of the row's cell means to the encoder, or what is made of it for training."""
        values = self._decoded(row)
        return (
            values if self.change is None else [self.change(row, n, value) for n, value in enumerate(values)]
        )

    def _decoded(self, row: int) -> list[Any]:
        example, read, reading = self.examples[row], self.read, self.encoder.reading
        if not isinstance(read, CachedRead) or reading.kind not in read.kinds:
            return list(example.values(self.name, reading, read))
        seen = self.digests.get(row)
        if seen == ():
            return list(example.values(self.name, reading, read.read))
        found = [read.cache.find(digest, reading) for digest in seen or ()]
        return found if found and all(value is not None for value in found) else self._read(row, read)

    def _read(self, row: int, read: CachedRead) -> list[Any]:
        noted: list[bytes] = []
        keeps: list[bool] = []

        def noting(data: bytes, reading: Reading) -> Any:
            noted.append(sha256(data).digest())
            value = read.known(data, noted[-1], reading)
            keeps.append(is_worth(data, reading, value))
            return value

        values = list(self.examples[row].values(self.name, self.encoder.reading, noting))
        self.digests[row] = tuple(noted) if any(keeps) else ()
        return values

    def part(self, rows: range) -> "LiveColumn":
        return LiveColumn(self.examples[rows.start : rows.stop], self.name, self.encoder, self.read)


@dataclass(frozen=True)
class PlainColumn:
    """A number or category column: all its inputs are in memory, of rows without one they are anything."""

    inputs: Mapping[str, Tensor]
    has: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example], name: str, encoder: Encoder) -> "PlainColumn":
        has = torch.tensor([example.has(name) for example in examples], dtype=torch.bool)
        made = encoder.prepare([e.row.values[name] for e in examples if e.has(name)])
        inputs = {key: x.new_zeros(len(examples), *x.shape[1:]) for key, x in made.items()}
        for key, x in made.items():
            inputs[key][has] = x
        return cls(inputs, has)

    def fetch(self, index: Tensor) -> Live:
        rows = self.has[index].nonzero().flatten()
        return Live({key: x[index[rows]] for key, x in self.inputs.items()}, rows)

    def part(self, rows: range) -> "PlainColumn":
        chosen = slice(rows.start, rows.stop)
        return PlainColumn({key: x[chosen] for key, x in self.inputs.items()}, self.has[chosen])


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
        """Nothing is left to be read or decoded."""
        return not any(isinstance(column, LiveColumn) for column in self.columns.values())

    @property
    def has_frames(self) -> bool:
        """Cached features of a row may be as large as a film's frames are many."""
        return any(isinstance(column, CachedFrames) for column in self.columns.values())

    def batch(self, index: Tensor) -> Batch:
        inputs = {name: column.fetch(index) for name, column in self.columns.items()}
        return Batch(inputs, self.present[index], self.targets[index])

    def changed(self, amounts: Mapping[str, Amounts], seed: int, epoch: int) -> "Examples":
        """With the values of these live columns changed at random, as they are in this epoch."""
        changed = {
            name: replace(column, change=change_of(name, column.encoder.reading.kind, some, seed, epoch))
            for name, some in amounts.items()
            if isinstance(column := self.columns[name], LiveColumn)
        }
        return replace(self, columns={**self.columns, **changed}) if changed else self

    def part(self, rows: range) -> "Examples":
        chosen = slice(rows.start, rows.stop)
        columns = {name: column.part(rows) for name, column in self.columns.items()}
        return Examples(columns, self.present[chosen], self.targets[chosen])


def gather(examples: Sequence[Example], columns: Mapping[str, Column], targets: Tensor) -> Examples:
    """`examples` with their columns in the network's order (sorted)."""
    names = sorted(columns)
    present = torch.tensor([[e.has(name) for name in names] for e in examples], dtype=torch.bool)
    return Examples({name: columns[name] for name in names}, present.view(len(examples), len(names)), targets)

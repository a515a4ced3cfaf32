"""Runs one tower over many rows' cells: decoded, padded, encoded in micro-batches. Knows no fusion."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from domain.manifest import MODALITIES, Code, ColumnType
from engine.data.probe import Undecodable
from engine.data.values import Read
from engine.infer.answers import Problem
from engine.infer.cells import Cells, read_cell
from engine.models.encoders import Encoder, Prepared
from engine.models.pooling import mean_of_parts
from engine.models.tokens import Tokens, in_rows
from engine.train.words import ShouldStop, heed

#: Rows encoded at once.
ROWS_AT_ONCE = {
    ColumnType.TEXT: 32,
    ColumnType.IMAGE: 16,
    ColumnType.AUDIO: 16,
    ColumnType.VIDEO: 2,
    ColumnType.NUMBER: 1024,
    ColumnType.CATEGORY: 1024,
}
#: What a network raises for inputs of a shape or size that it cannot take, or that do not fit in memory.
_REFUSALS = (RuntimeError, ValueError, IndexError, MemoryError)


#: A vector, [width], or tokens, [any number, width], or why there is none.
Outcome = Tensor | Problem

_TOO_LARGE = Problem(
    Code.UNREADABLE_MEDIA, "its values are so large that the encoder overflows; bring them to a usual range"
)


@dataclass
class Clock:
    """Where the time goes, in seconds."""

    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.spent[name] += time.monotonic() - began

    def ms(self, name: str) -> float:
        return round(self.spent[name] * 1000, 3)


@dataclass(frozen=True)
class Tower:
    """One column's encoder, at work."""

    name: str
    encoder: Encoder
    clock: Clock
    should_stop: ShouldStop
    read: Read

    @property
    def device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def encode(self, rows: Sequence[Cells], wanted: Callable[[Cells], bool]) -> Tensor | Tokens:
        """Vectors [rows, width] on the encoder's device, zeros where a row has none, or tokens, none where it has none;
        notes failed cells.

        Raises StopAsked.
        """
        found: dict[int, Tensor] = {}
        places = [i for i, cells in enumerate(rows) if self.name in cells.used and wanted(cells)]
        size = ROWS_AT_ONCE[self.encoder.reading.kind]
        for start in range(0, len(places), size):
            piece = places[start : start + size]
            outcomes = self._cells([rows[i].values[self.name] for i in piece])
            for place, outcome in zip(piece, outcomes, strict=True):
                if isinstance(outcome, Problem):
                    rows[place].failed[self.name] = Problem(outcome.code, outcome.message, self.name)
                else:
                    found[place] = outcome
        return self._in_rows(found, len(rows))

    def _in_rows(self, found: Mapping[int, Tensor], rows: int) -> Tensor | Tokens:
        into = torch.tensor(list(found), dtype=torch.int64, device=self.device)
        empty = torch.zeros(0, self.encoder.width, device=self.device)
        if self.encoder.max_tokens is not None:
            counts = torch.tensor([len(tokens) for tokens in found.values()], dtype=torch.int64)
            return in_rows(torch.cat([empty, *found.values()]), counts, into, rows)
        pooled = torch.zeros(rows, self.encoder.width, device=self.device)
        return pooled.index_copy(0, into, torch.stack(list(found.values())) if found else empty)

    def _cells(self, values: Sequence[Any]) -> list[Outcome]:
        """Of a list of files the mean over their vectors, or all their tokens, as in training; of one that one's."""
        # Numbers and categories come one a cell: a list there is a mistake like any other.
        takes_several = self.encoder.reading.kind in MODALITIES
        parts = [value if takes_several and isinstance(value, list) else [value] for value in values]
        flat = [part for cell in parts for part in cell]
        size = ROWS_AT_ONCE[self.encoder.reading.kind]
        pieces = (flat[start : start + size] for start in range(0, len(flat), size))
        outcomes = iter([outcome for piece in pieces for outcome in self._micro_batch(piece)])
        return [self._joined(list(islice(outcomes, len(cell)))) for cell in parts]

    def _micro_batch(self, values: Sequence[Any]) -> list[Outcome]:
        found: dict[int, Outcome] = {}
        ready: list[tuple[int, Any]] = []
        with self.clock.part("decode"):
            for place, value in enumerate(values):
                # A large picture takes a second: a cancel must not wait for a whole micro-batch of them.
                heed(self.should_stop)
                try:
                    ready.append((place, self._read(value)))
                except Undecodable as error:
                    found[place] = Problem(error.code, error.message)
                except _REFUSALS as error:
                    found[place] = _refused(error)
        if self.encoder.reading.kind is ColumnType.TEXT:
            found |= _halving(ready, self._of_texts)
        else:
            for group in _alike(ready):
                found |= _halving(group, self._of_prepared)
        return [found[place] for place in range(len(values))]

    def _read(self, value: Any) -> Any:
        """A text, or the inputs of anything else: prepared one by one, as a decoded picture is a thousand times larger."""
        read = read_cell(value, self.encoder.reading, self.read)
        return read if self.encoder.reading.kind is ColumnType.TEXT else self.encoder.prepare([read])

    def _of_texts(self, texts: Sequence[str]) -> list[Outcome]:
        """Padded to the longest; the mask keeps the padding out of the vectors."""
        with self.clock.part("decode"):
            inputs = self.encoder.prepare(texts)
        return self._run(inputs)

    def _of_prepared(self, inputs: Sequence[Prepared]) -> list[Outcome]:
        return self._run({key: torch.cat([given[key] for given in inputs]) for key in inputs[0]})

    def _run(self, inputs: Prepared) -> list[Outcome]:
        with self.clock.part("gpu"):
            given = {key: x.to(self.device) for key, x in inputs.items()}
            if self.encoder.max_tokens is None:
                vectors: Sequence[Tensor] = self.encoder(given)
            else:
                tokens, counts = self.encoder.vectors(given)
                vectors = tokens.split(counts.tolist())
            # Also waits for the device, so that the clock tells the truth.
            finite = [bool(vector.isfinite().all()) for vector in vectors]
        return [vector if good else _TOO_LARGE for vector, good in zip(vectors, finite, strict=True)]

    def _joined(self, outcomes: list[Outcome]) -> Outcome:
        if len(outcomes) == 1:
            return outcomes[0]
        for number, outcome in enumerate(outcomes, start=1):
            if isinstance(outcome, Problem):
                return replace(outcome, message=f"file {number} of {len(outcomes)}: {outcome.message}")
        vectors = [outcome for outcome in outcomes if isinstance(outcome, Tensor)]
        if self.encoder.max_tokens is None:
            return mean_of_parts(torch.stack(vectors), torch.tensor([len(vectors)]))[0]
        counts = torch.tensor([len(tokens) for tokens in vectors])
        return self.encoder.in_cells(torch.cat(vectors), counts, torch.tensor([len(vectors)]))[0]


def _alike(ready: list[tuple[int, Prepared]]) -> list[list[tuple[int, Prepared]]]:
    """Inputs of one shape go together: so none is padded, and each is what it would be alone."""
    groups: dict[Any, list[tuple[int, Prepared]]] = defaultdict(list)
    for place, inputs in ready:
        groups[tuple(sorted((key, tuple(x.shape)) for key, x in inputs.items()))].append((place, inputs))
    return list(groups.values())


def _halving(items: list[tuple[int, Any]], run: Callable[[list[Any]], list[Outcome]]) -> dict[int, Outcome]:
    """`run` over all items at once; if it refuses, over each half, until the bad one stands alone."""
    if not items:
        return {}
    try:
        outcomes = run([item for _, item in items])
    except _REFUSALS as error:
        if len(items) == 1:
            return {items[0][0]: _refused(error)}
        middle = len(items) // 2
        return _halving(items[:middle], run) | _halving(items[middle:], run)
    return {place: outcome for (place, _), outcome in zip(items, outcomes, strict=True)}


def _refused(error: Exception) -> Problem:
    return Problem(Code.UNREADABLE_MEDIA, f"the encoder cannot read it ({error}); send another")

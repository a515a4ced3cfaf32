"""Fills the feature cache for the frozen towers: the first epoch's decoding and encoding, and the only one."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
import transformers

from domain.errors import EngineError
from domain.manifest import ColumnType
from engine.data.cache import FeatureCache
from engine.data.caches import Caches
from engine.data.collate import ahead
from engine.data.dataset import CachedColumn, CachedFrames, Example, announce
from engine.data.values import Read
from engine.models.encoders import Encoder
from engine.models.several import encode_parts, encode_tokens
from engine.train.contents import content_keys
from engine.train.threads import one_thread
from engine.train.words import Progress, ShouldStop, heed

#: Rows encoded at once: enough to fill two cores, and well under the second in which a stop must be heard.
ROWS_AT_ONCE = {ColumnType.TEXT: 32, ColumnType.IMAGE: 16, ColumnType.AUDIO: 16, ColumnType.VIDEO: 2}
#: Threads that decode and encode; each holds a micro-batch in memory.
AT_MOST = 16
#: A killed job loses at most this much work, and the progress is never older than REPORT_S.
SHARD_S, REPORT_S = 2.0, 0.5


@dataclass(frozen=True)
class Tower:
    """A frozen tower over all rows of a job. Equal inputs are encoded once."""

    name: str
    encoder: Encoder
    examples: Sequence[Example]
    #: Of each row, or None where it is missing.
    keys: Sequence[str | None]
    cache: FeatureCache
    read: Read

    @property
    def wanted(self) -> dict[str, Example]:
        return {k: e for k, e in zip(self.keys, self.examples, strict=True) if k is not None}


def open_tower(
    name: str,
    encoder: Encoder,
    examples: Sequence[Example],
    caches: Caches,
    read: Read,
    should_stop: ShouldStop,
) -> Tower:
    keys = content_keys(examples, name, should_stop)
    cache = caches.features(tower_key(encoder), encoder.frame_width, several=encoder.gives_several)
    return Tower(name, encoder, examples, keys, cache, caches.encoding(read))


def tower_key(encoder: Encoder) -> str:
    """The library takes part in preprocessing, so its version is in the name of the tower's folder."""
    return hashlib.sha256(
        f"{encoder.fingerprint}{encoder.carries} {transformers.__version__}".encode()
    ).hexdigest()


class Meter:
    """Progress over all towers."""

    def __init__(self, total: int, report: Callable[[Progress], None]) -> None:
        self._total, self._report = total, report
        self._done, self._began, self._due = 0, time.monotonic(), 0.0

    def add(self, rows: int) -> None:
        self._done += rows
        instant = time.monotonic()
        if instant >= self._due or self._done == self._total:
            self._due = instant + REPORT_S
            pace = self._done / max(instant - self._began, 1e-9)
            eta = (self._total - self._done) / pace if pace else None
            self._report(Progress("encoding", None, None, self._done, self._total, pace or None, eta))


def fill(
    towers: Sequence[Tower],
    *,
    report: Callable[[Progress], None],
    should_stop: ShouldStop,
) -> int:
    """Encodes what the caches lack, and says how much that was. Stopped midway, what was encoded is kept."""
    lacking = {tower.name: _lacking(tower) for tower in towers}
    total = sum(len(todo) for todo in lacking.values())
    if total:
        report(Progress("encoding", total_steps=total, message=_announced(towers, lacking)))
    meter = Meter(total, report)
    for tower in towers:
        _fill(tower, lacking[tower.name], meter, should_stop)
    return total


def _lacking(tower: Tower) -> set[str]:
    """What neither this machine nor another has."""
    keys = list(tower.wanted)
    lacking = _missed(tower.cache, keys)
    return _missed(tower.cache, keys) if tower.cache.fetch(lacking) else lacking


def _missed(cache: FeatureCache, keys: list[str]) -> set[str]:
    have = cache.survey(keys)[0].tolist()
    return {k for k, had in zip(keys, have, strict=True) if not had}


def _announced(towers: Sequence[Tower], lacking: dict[str, set[str]]) -> str:
    parts = [f"{len(lacking[t.name])} of {len(t.wanted)} inputs of '{t.name}'" for t in towers]
    return f"Encoding {', '.join(parts)}; the others are cached."


def _pieces(keys: list[str], todo: set[str], size: int) -> Iterator[list[str]]:
    """Micro-batches cut from all keys, less what is cached: an interrupted job goes on with the same ones,
    and so to the last bit with the same features.
    """
    for start in range(0, len(keys), size):
        piece = [k for k in keys[start : start + size] if k in todo]
        if piece:
            yield piece


def _fill(tower: Tower, todo: set[str], meter: Meter, should_stop: ShouldStop) -> None:
    size = ROWS_AT_ONCE[tower.encoder.reading.kind]
    device = next(tower.encoder.parameters()).device
    wanted = tower.wanted

    def encode(keys: list[str]) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        announce([wanted[k] for k in keys], tower.name)
        reading = tower.encoder.reading
        parts = (part for k in keys for part in wanted[k].values(tower.name, reading, tower.read))
        counts = [wanted[k].count(tower.name) for k in keys]
        with torch.inference_mode():
            if tower.encoder.gives_several:
                found, lengths = encode_tokens(tower.encoder, parts, counts, size, device)
                return keys, found.cpu(), lengths.cpu()
            vectors = encode_parts(tower.encoder, parts, counts, size, device)
            return keys, vectors.cpu(), torch.ones(len(keys), dtype=torch.int64)

    shard = _Shard(tower.cache)
    with (
        one_thread() as workers,
        closing(ahead(encode, _pieces(list(wanted), todo, size), min(workers, AT_MOST))) as encoded,
    ):
        try:
            for keys, features, counts in encoded:
                heed(should_stop)
                shard.add(keys, features, counts)
                meter.add(len(keys))
        finally:
            shard.close()


class _Shard:
    """What was encoded since the last shard was written."""

    def __init__(self, cache: FeatureCache) -> None:
        self._cache = cache
        self._keys: list[str] = []
        self._features: list[torch.Tensor] = []
        self._counts: list[torch.Tensor] = []
        self._began = time.monotonic()

    def add(self, keys: list[str], features: torch.Tensor, counts: torch.Tensor) -> None:
        self._keys += keys
        self._features.append(features)
        self._counts.append(counts)
        if time.monotonic() - self._began >= SHARD_S:
            self.close()

    def close(self) -> None:
        if self._keys:
            seconds = time.monotonic() - self._began
            self._cache.append(self._keys, torch.cat(self._features), seconds, torch.cat(self._counts))
        self._keys, self._features, self._counts, self._began = [], [], [], time.monotonic()


def read_back(tower: Tower) -> CachedColumn | CachedFrames:
    """All rows' features, as the cache holds them: the first epoch sees what every later one sees."""
    keys = list(tower.wanted)
    found = tower.cache.read(keys)
    if not bool(found.have.all()):
        raise EngineError("cache_lost", "features were evicted while they were read", retryable=True)
    place = {name: i for i, name in enumerate(keys)}
    if tower.cache.several:
        ends = found.counts.cumsum(0)
        of_row = torch.tensor([-1 if name is None else place[name] for name in tower.keys], dtype=torch.long)
        there = of_row >= 0
        counts = torch.where(there, found.counts[of_row], 0) if keys else torch.zeros_like(of_row)
        starts = torch.where(there, (ends - found.counts)[of_row], 0) if keys else torch.zeros_like(of_row)
        return CachedFrames(found.features, starts, counts)
    features = torch.zeros(len(tower.keys), tower.encoder.width)
    rows = [(i, place[name]) for i, name in enumerate(tower.keys) if name is not None]
    if rows:
        into, source = torch.tensor(rows).T
        features[into] = found.features[source]
    return CachedColumn(features)


def cost(tower: Tower, rows: range) -> float:
    """The seconds that encoding these rows once took, whichever job did it."""
    keys = list({tower.keys[i]: None for i in rows if tower.keys[i] is not None})
    return tower.cache.survey([k for k in keys if k is not None])[1]

"""From labelled rows to what the loop reads: features of frozen towers, live inputs of trained ones."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from domain.manifest import TABULAR
from domain.tasks import Task
from engine.data.caches import Caches
from engine.data.conversations import converse
from engine.data.dataset import Column, Example, Examples, LiveColumn, PlainColumn, gather
from engine.data.media_cache import MediaCache
from engine.data.silence import silenced
from engine.data.speedups import keep_speedup, kept_speedup, speedup_record
from engine.data.splits import Splits
from engine.data.values import Read, read_value
from engine.models.multimodal import Multimodal
from engine.models.vision_language import VisionLanguage
from engine.train import encode
from engine.train.contents import content_keys, key_of
from engine.train.words import Progress, ShouldStop, heed


@dataclass(frozen=True)
class Inputs:
    train: Examples
    validation: Examples
    test: Examples
    #: What decoding and encoding the training rows took when their features were made.
    encoding_seconds: float
    #: Where the cache's gain is kept; None when a tower's inputs are decoded each time, or none are decoded at all.
    record: Path | None
    #: This job made none of the features.
    was_full: bool
    #: Of the inputs of frozen towers, those whose features were there; None without such towers.
    feature_hit_rate: float | None
    media: MediaCache

    def hit_rates(self) -> dict[str, float]:
        """Of what this job asked the caches for, how much was there."""
        found = {"feature_cache_hit_rate": self.feature_hit_rate, "media_cache_hit_rate": self.media.hit_rate}
        return {name: rate for name, rate in found.items() if rate is not None}

    def speedup(self, first_epoch: float, later_epoch: float) -> float | None:
        """First epoch over a later one, as measured by the job that filled the cache."""
        if self.record is None:
            return None
        kept = kept_speedup(self.record) if self.was_full else None
        if kept is None:
            kept = first_epoch / later_epoch
            keep_speedup(self.record, kept)
        return kept


def prepare(
    model: Multimodal,
    splits: Splits,
    caches: Caches,
    *,
    report: Callable[[Progress], None],
    should_stop: ShouldStop,
    read: Read = read_value,
    live: Collection[str] = (),
) -> Inputs:
    """Encodes for the frozen towers, less those that encode in each epoch (`live`), what the caches lack. Raises StopAsked."""
    examples = _heard(splits, model.names, should_stop)
    frozen = [
        encode.open_tower(name, model.encoder(name), examples, caches, read, should_stop)
        for name in sorted(model.frozen - set(live))
    ]
    made = encode.fill(frozen, report=report, should_stop=should_stop)
    wanted = sum(len(tower.wanted) for tower in frozen)
    columns: dict[str, Column] = {tower.name: encode.read_back(tower) for tower in frozen}
    plain = [name for name in model.names if model.encoder(name).reading.kind in TABULAR]
    columns |= {name: PlainColumn.of(examples, name, model.encoder(name)) for name in plain}
    for name in model.names:
        if name not in columns:
            columns[name] = LiveColumn(examples, name, model.encoder(name), caches.training(read))
    targets = splits.targets
    if splits.goal.task is Task.CONTRASTIVE:
        targets = _keys(examples, model.names, frozen, should_stop)
    whole, ends = gather(examples, columns, targets), len(splits.train) + len(splits.validation)
    writes = isinstance(model, VisionLanguage)
    if isinstance(model, VisionLanguage):
        whole = converse(whole, examples, model.prompter, model.longest_answer)
    training = range(len(splits.train))
    return Inputs(
        train=whole.part(training),
        validation=whole.part(range(len(training), ends)),
        test=whole.part(range(ends, len(examples))),
        encoding_seconds=sum(encode.cost(tower, training) for tower in frozen),
        record=_record(frozen, plain, training, caches.root)
        if frozen and whole.is_cached and not writes
        else None,
        was_full=made == 0,
        feature_hit_rate=1 - made / wanted if wanted else None,
        media=caches.media,
    )


def _keys(
    examples: list[Example], names: Collection[str], frozen: list[encode.Tower], should_stop: ShouldStop
) -> Tensor:
    """What each cell holds, as a contrastive loss takes it. [rows, columns]"""
    known = {tower.name: tower.keys for tower in frozen}
    found = [known.get(name) or content_keys(examples, name, should_stop) for name in names]
    return torch.tensor([[key_of(key) for key in keys] for keys in found], dtype=torch.long).T.contiguous()


def _heard(splits: Splits, columns: Collection[str], should_stop: ShouldStop) -> list[Example]:
    """All rows; the sound of a film without a sound track is missing."""
    if not set(splits.schema.sounds) & set(columns):
        return splits.all
    examples = []
    for example in splits.all:
        heed(should_stop)
        examples.append(replace(example, row=silenced(example.dataset, example.row, columns)))
    return examples


def _record(frozen: list[encode.Tower], plain: list[str], training: range, cache: Path) -> Path:
    towers = [encode.tower_key(tower.encoder) for tower in frozen]
    keys = [f"{tower.name} {tower.keys[i]}" for tower in frozen for i in training]
    # What their towers take of an epoch is part of what was measured.
    keys += plain
    return speedup_record(cache, towers, keys)

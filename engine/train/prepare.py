"""From labelled rows to what the loop reads: features of frozen towers, live inputs of trained ones."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from engine.data.cache import keep_speedup, kept_speedup, speedup_record
from engine.data.dataset import Column, Example, Examples, LiveColumn, gather
from engine.data.silence import silenced
from engine.data.splits import Splits
from engine.data.values import Read, read_value
from engine.models.multimodal import Multimodal
from engine.train import encode
from engine.train.words import Progress, ShouldStop, heed


@dataclass(frozen=True)
class Inputs:
    train: Examples
    validation: Examples
    test: Examples
    #: What decoding and encoding the training rows took when their features were made.
    encoding_seconds: float
    #: Where the cache's gain is kept; None when a tower is trained and there is no such gain.
    record: Path | None
    #: This job made none of the features.
    was_full: bool

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
    cache: Path,
    *,
    report: Callable[[Progress], None],
    should_stop: ShouldStop,
    read: Read = read_value,
) -> Inputs:
    """Encodes for the frozen towers what `cache` lacks. Raises StopAsked."""
    examples = _heard(splits, model.names, should_stop)
    frozen = [
        encode.open_tower(name, model.encoder(name), examples, cache, read, should_stop)
        for name in sorted(model.frozen)
    ]
    made = encode.fill(frozen, report=report, should_stop=should_stop)
    columns: dict[str, Column] = {tower.name: encode.read_back(tower) for tower in frozen}
    for name in model.names:
        if name not in columns:
            columns[name] = LiveColumn(examples, name, model.encoder(name), read)
    whole, ends = gather(examples, columns, splits.targets), len(splits.train) + len(splits.validation)
    training = range(len(splits.train))
    return Inputs(
        train=whole.part(training),
        validation=whole.part(range(len(training), ends)),
        test=whole.part(range(ends, len(examples))),
        encoding_seconds=sum(encode.cost(tower, training) for tower in frozen),
        record=_record(frozen, training, cache) if len(frozen) == len(model.names) else None,
        was_full=made == 0,
    )


def _heard(splits: Splits, columns: Collection[str], should_stop: ShouldStop) -> list[Example]:
    """All rows; the sound of a film without a sound track is missing."""
    if not set(splits.schema.sounds) & set(columns):
        return splits.all
    examples = []
    for example in splits.all:
        heed(should_stop)
        examples.append(replace(example, row=silenced(example.dataset, example.row, columns)))
    return examples


def _record(frozen: list[encode.Tower], training: range, cache: Path) -> Path:
    towers = [encode.tower_key(tower.encoder) for tower in frozen]
    keys = [f"{tower.name} {tower.keys[i]}" for tower in frozen for i in training]
    return speedup_record(cache, towers, keys)

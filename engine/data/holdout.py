"""Which rows train, validate and test. Deterministic, and a held-out group never straddles two splits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256

from domain.errors import EngineError
from domain.manifest import Code, Split
from engine.data.manifest import Row

HELD_OUT = 0.1
ONE_GROUP = "All training rows are one group, so none can be held out; give validation rows."


def assign_splits(rows: Sequence[Row], seed: int, *, hold_out: bool = True) -> dict[Split, list[int]]:
    """Row numbers by split. A row keeps the split it names, and trains if it names none.

    Unless `hold_out` is off or there are validation rows, about a tenth of the training rows is held out.
    """
    splits: dict[Split, list[int]] = {split: [] for split in Split}
    for number, row in enumerate(rows):
        splits[Split(row.split) if row.split else Split.TRAIN].append(number)
    if hold_out and splits[Split.TRAIN] and not splits[Split.VALIDATION]:
        held = _held_out(rows, splits[Split.TRAIN], seed)
        splits[Split.VALIDATION] = [n for n in splits[Split.TRAIN] if n in held]
        splits[Split.TRAIN] = [n for n in splits[Split.TRAIN] if n not in held]
    return splits


def _group(row: Row) -> str:
    return row.id if row.group is None else row.group


def _held_out(rows: Sequence[Row], numbers: Sequence[int], seed: int) -> set[int]:
    """Whole groups in the order of their hashes, until a tenth is reached."""
    groups: dict[str, list[int]] = {}
    for number in numbers:
        groups.setdefault(_group(rows[number]), []).append(number)
    if len(groups) < 2:
        raise EngineError(Code.TOO_FEW_EXAMPLES, ONE_GROUP, param="training_file")
    order = sorted(groups, key=lambda name: sha256(f"{seed}:{name}".encode()).digest())
    held: set[int] = set()
    for name in list(_spared(rows, groups, order)) or order[:1]:
        held.update(groups[name])
        if len(held) >= HELD_OUT * len(numbers):
            break
    return held


def _spared(rows: Sequence[Row], groups: dict[str, list[int]], order: Sequence[str]) -> Iterator[str]:
    """The groups that can go, one after the other, without the last example of a class going with them."""
    left = Counter(name for numbers in groups.values() for n in numbers for name in _classes(rows[n]))
    for name in order:
        taken = Counter(known for n in groups[name] for known in _classes(rows[n]))
        if all(left[label] > count for label, count in taken.items()):
            left -= taken
            yield name


def _classes(row: Row) -> tuple[str, ...]:
    """Whose last example the row may be. A measured number is no class: nearly each is the only one."""
    if isinstance(row.label, tuple):
        return row.label
    return (row.label,) if isinstance(row.label, str) else ()

"""Which rows train, validate and test. Deterministic, and a held-out group never straddles two splits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256

from domain.errors import EngineError
from domain.manifest import Code, Split
from engine.data.manifest import Row

ONE_GROUP = "The training rows are too few groups for some to be held out; name their splits, or give files."


def assign_splits(
    rows: Sequence[Row], seed: int, shares: Mapping[Split, float] | None = None
) -> dict[Split, list[int]]:
    """Row numbers by split. A row keeps the split it names, and trains if it names none.

    `shares` of the training rows are held out for the splits that have none. Raises EngineError if the rows
    are too few groups for that.
    """
    splits: dict[Split, list[int]] = {split: [] for split in Split}
    for number, row in enumerate(rows):
        splits[Split(row.split) if row.split else Split.TRAIN].append(number)
    # All shares are of all training rows, whichever is taken first.
    total = len(splits[Split.TRAIN])
    for split, share in (shares or {}).items():
        if share and splits[Split.TRAIN] and not splits[split]:
            held = _held_out(rows, splits[Split.TRAIN], share * total, _name(seed, split))
            splits[split] = [n for n in splits[Split.TRAIN] if n in held]
            splits[Split.TRAIN] = [n for n in splits[Split.TRAIN] if n not in held]
    return splits


def _name(seed: int, split: Split) -> str:
    """Two splits are drawn apart from one another."""
    return str(seed) if split is Split.VALIDATION else f"{seed}:{split}"


def _group(row: Row) -> str:
    return row.id if row.group is None else row.group


def _held_out(rows: Sequence[Row], numbers: Sequence[int], wanted: float, draw: str) -> set[int]:
    """Whole groups in the order of their hashes, until `wanted` rows are reached.

    First those that keep to each class's share, so that a small class is neither lost nor held out whole.
    """
    groups: dict[str, list[int]] = {}
    for number in numbers:
        groups.setdefault(_group(rows[number]), []).append(number)
    if len(groups) < 2:
        raise EngineError(Code.TOO_FEW_EXAMPLES, ONE_GROUP, param="training_file")
    order = sorted(groups, key=lambda name: sha256(f"{draw}:{name}".encode()).digest())
    draws = _Draws(rows, groups, wanted)
    for stratified in (True, False):
        for name in order:
            draws.take(name, stratified=stratified)
    return draws.held or set(groups[order[0]])


class _Draws:
    """Takes groups one after the other, as long as rows are wanted."""

    def __init__(self, rows: Sequence[Row], groups: Mapping[str, list[int]], wanted: float) -> None:
        self._groups, self._wanted = groups, wanted
        self._classes = {name: _counted(rows, numbers) for name, numbers in groups.items()}
        self._left = Counter[str]()
        for counts in self._classes.values():
            self._left += counts
        share = wanted / sum(map(len, groups.values()))
        self._quota = Counter({name: round(share * count) for name, count in self._left.items()})
        self.held: set[int] = set()

    def take(self, name: str, *, stratified: bool) -> None:
        """If rows are wanted, and if the last example of no class goes with the group."""
        counts, numbers = self._classes[name], self._groups[name]
        if len(self.held) >= self._wanted or numbers[0] in self.held:
            return
        if stratified and any(self._quota[known] < count for known, count in counts.items()):
            return
        if all(self._left[known] > count for known, count in counts.items()):
            self._left -= counts
            self._quota.subtract(counts)
            self.held.update(numbers)


def _counted(rows: Sequence[Row], numbers: Sequence[int]) -> Counter[str]:
    return Counter(known for n in numbers for known in _classes(rows[n]))


def _classes(row: Row) -> tuple[str, ...]:
    """Whose last example the row may be. A measured number is no class: nearly each is the only one."""
    if isinstance(row.label, tuple):
        return row.label
    return (row.label,) if isinstance(row.label, str) else ()

"""Which rows train, validate and test. Deterministic, and a held-out group never straddles two splits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256

from domain.errors import EngineError
from domain.manifest import Code, Split
from engine.data.manifest import Row

TOO_FEW_GROUPS = (
    "The training rows are too few groups for some to be held out; name their splits, or give files."
)


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
    open_shares = {split: share for split, share in (shares or {}).items() if share and not splits[split]}
    for left, (split, share) in zip(reversed(range(len(open_shares))), open_shares.items(), strict=True):
        if not total:
            break
        # Of the groups one must be left to train on, and one for each split that is still to come.
        draws = _Draws(rows, splits[Split.TRAIN], share * total, spare=1 + left)
        held = draws.held(_name(seed, split))
        splits[split] = [n for n in splits[Split.TRAIN] if n in held]
        splits[Split.TRAIN] = [n for n in splits[Split.TRAIN] if n not in held]
    return splits


def _name(seed: int, split: Split) -> str:
    """Two splits are drawn apart from one another."""
    return str(seed) if split is Split.VALIDATION else f"{seed}:{split}"


#: Whether a row stands for itself, and the name of its group, or its own.
_Group = tuple[bool, str]


def _group(row: Row) -> _Group:
    return (True, row.id) if row.group is None else (False, row.group)


class _Draws:
    """Holds out whole groups of rows, about as many rows as are wanted."""

    def __init__(self, rows: Sequence[Row], numbers: Sequence[int], wanted: float, spare: int) -> None:
        self._groups: dict[_Group, list[int]] = {}
        for number in numbers:
            self._groups.setdefault(_group(rows[number]), []).append(number)
        if len(self._groups) <= spare:
            raise EngineError(Code.TOO_FEW_EXAMPLES, TOO_FEW_GROUPS, param="training_file")
        self._wanted, self._most = wanted, len(self._groups) - spare
        self._classes = {name: _counted(rows, members) for name, members in self._groups.items()}
        self._left = Counter[str]()
        for counts in self._classes.values():
            self._left.update(counts)
        share = wanted / len(numbers)
        self._quota = Counter({name: round(share * count) for name, count in self._left.items()})
        self._taken: set[_Group] = set()
        self._rows = 0

    def held(self, draw: str) -> set[int]:
        """The rows, drawn in the order of their groups' hashes.

        First come groups that keep to each class's share, so that a small class is neither lost nor held out whole.
        """
        order = sorted(self._groups, key=lambda group: sha256(f"{draw}:{group[1]}".encode()).digest())
        for keeps_share in (self._keeps_share, lambda _: True):
            for group in order:
                if group not in self._taken and keeps_share(group) and self._fits(group):
                    self._take(group)
        if not self._taken:
            self._take(min(order, key=lambda group: len(self._groups[group])))
        return {number for group in self._taken for number in self._groups[group]}

    def _keeps_share(self, group: _Group) -> bool:
        return all(self._quota[known] >= count for known, count in self._classes[group].items())

    def _fits(self, group: _Group) -> bool:
        """Whether it comes nearer to what is wanted, and the last example of no class goes with it."""
        after = self._rows + len(self._groups[group])
        if len(self._taken) >= self._most or abs(after - self._wanted) > abs(self._rows - self._wanted):
            return False
        return all(self._left[known] > count for known, count in self._classes[group].items())

    def _take(self, group: _Group) -> None:
        self._taken.add(group)
        self._rows += len(self._groups[group])
        self._left.subtract(self._classes[group])
        self._quota.subtract(self._classes[group])


def _counted(rows: Sequence[Row], numbers: Sequence[int]) -> Counter[str]:
    return Counter(known for n in numbers for known in _classes(rows[n]))


def _classes(row: Row) -> tuple[str, ...]:
    """Whose last example the row may be. A measured number is no class: nearly each is the only one."""
    if isinstance(row.label, tuple):
        return row.label
    return (row.label,) if isinstance(row.label, str) else ()

"""What a number or category column holds, in a few numbers: whether it can teach anything. Reads no media."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from domain.manifest import TABULAR, Code, ColumnType, Issue
from engine.data.hashes import hash64
from engine.data.rows import Row, Value

#: Values of a category column that have a vector each; what is rarer shares the one of unseen values.
MOST_VALUES = 10_000
#: So few values are no ids, however few rows there are.
_FEW = 10


@dataclass
class Profile:
    """One column, cell by cell. Its memory is bounded, however many cells come."""

    kind: ColumnType
    cells: int = 0
    #: Hashes of the values of a category column, no more than one above MOST_VALUES.
    distinct: set[int] = field(default_factory=set)
    least: float = 0.0
    most: float = 0.0
    #: Each number is the one before plus one.
    counts_up: bool = True
    _last: float = 0.0

    def add(self, value: Value) -> None:
        if isinstance(value, float):
            self._add_number(value)
        elif value is not None and len(self.distinct) <= MOST_VALUES:
            self.distinct.add(hash64(str(value).encode("utf-8", "surrogatepass")))
        self.cells += value is not None

    def _add_number(self, value: float) -> None:
        if self.cells:
            self.counts_up = self.counts_up and value == self._last + 1
        self.least = min(self.least, value) if self.cells else value
        self.most = max(self.most, value) if self.cells else value
        self._last = value

    @property
    def is_constant(self) -> bool:
        """There is one value, or none: nothing can be told from it."""
        if self.kind is ColumnType.NUMBER:
            return self.least == self.most
        return len(self.distinct) <= 1

    @property
    def has_many_values(self) -> bool:
        """A category column that says something else in most rows, as ids do."""
        return len(self.distinct) > min(MOST_VALUES, max(_FEW, self.cells / 2))

    @property
    def is_running_number(self) -> bool:
        return self.kind is ColumnType.NUMBER and self.cells > _FEW and self.counts_up

    def idle(self, name: str) -> Issue | None:
        """Why no tower is made of it unless one is asked for."""
        ask = "to use it all the same, write the spec's towers down, and it among them"
        if self.is_constant:
            message = f"'{name}' has one value at most, which tells nothing: no tower is made of it; {ask}."
            return Issue(Code.CONSTANT_COLUMN, message, column=name, severity="warning")
        if self.has_many_values:
            message = (
                f"'{name}' has another value in most rows, as ids have: no tower is made of it; name it as the "
                f"schema's id, or, {ask}."
            )
            return Issue(Code.HIGH_CARDINALITY, message, column=name, severity="warning")
        if self.is_running_number:
            message = (
                f"'{name}' counts the rows: no tower is made of it; name it as the schema's id, or, {ask}."
            )
            return Issue(Code.HIGH_CARDINALITY, message, column=name, severity="warning")
        return None

    def doubtful(self, name: str) -> Issue | None:
        """What is to be said of a tower that was asked for."""
        if self.is_constant:
            message = (
                f"'{name}' has one value at most, of which nothing is learned; remove it from the towers."
            )
            return Issue(Code.CONSTANT_COLUMN, message, column=name, severity="warning")
        if self.has_many_values:
            message = (
                f"'{name}' has very many values: what few rows have is hardly learned, and beyond the "
                f"{MOST_VALUES} most frequent ones all are one. Give rare values one name, or remove it."
            )
            return Issue(Code.HIGH_CARDINALITY, message, column=name, severity="warning")
        return None


class Profiles:
    """Of all number and category columns among `types`."""

    def __init__(self, types: Mapping[str, ColumnType]) -> None:
        self.of = {name: Profile(kind) for name, kind in types.items() if kind in TABULAR}

    def add(self, row: Row) -> None:
        for name, profile in self.of.items():
            profile.add(row.values.get(name))

    def doubts(self) -> list[Issue]:
        return [issue for name, profile in self.of.items() if (issue := profile.doubtful(name)) is not None]


def default_columns(
    rows: Iterable[Row], types: Mapping[str, ColumnType], should_stop: Callable[[], bool] = lambda: False
) -> tuple[dict[str, ColumnType], list[Issue]]:
    """The columns that towers are made of if the spec names none, and why the others are none: a warning each.

    All but number and category columns that can teach nothing, or are ids by the look of them.
    """
    profiles = Profiles(types)
    if profiles.of:
        for row in rows:
            if should_stop():
                break
            profiles.add(row)
    idle = {name: issue for name, p in profiles.of.items() if (issue := p.idle(name)) is not None}
    return {name: types[name] for name in sorted(types) if name not in idle}, list(idle.values())

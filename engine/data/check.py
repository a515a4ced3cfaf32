"""Reads every row and every picture and sound that the towers will, and lists every problem. Loads no torch."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from domain.errors import EngineError
from domain.manifest import MODALITIES, Code, ColumnType, Issue, Split, errors_in
from domain.specs import Multimodal
from domain.tasks import Task
from engine.data.classes import class_issues, spec_issues, task_of
from engine.data.holdout import assign_splits
from engine.data.manifest import Dataset, MediaRef, Row, Unreadable, class_name
from engine.data.probe import Undecodable, probe_audio, probe_image
from engine.data.tables import excerpt

__all__ = ["MIN_ROWS", "Report", "check", "class_name"]

#: Of fewer rows nothing is left to learn from once some are held out.
MIN_ROWS = 4

_SPLIT_OF_ROLE = {"training": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}
#: What only a training file needs of its schema: the others count whole.
_FOR_TRAINING = ("schema.split", "schema.group")


@dataclass
class Report:
    """What a data set is and what is wrong with it."""

    rows: int
    columns: dict[str, ColumnType]
    classes: list[str] = field(default_factory=list)
    #: The spec's, or what its labels mean.
    task: Task = Task.CLASSIFICATION
    #: Rows by split, as the file has them: nothing is held out yet.
    counts: dict[str, int] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    @property
    def errors(self) -> list[Issue]:
        return errors_in(self.issues)


def check(
    dataset: Dataset,
    spec: Multimodal,
    *,
    role: str = "training",
    classes: Sequence[str] | None = None,
    hold_out: bool = True,
    should_stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Every problem that `dataset` has as a `training`, `validation` or `test` file.

    `classes` are the training file's, for the other two; `hold_out` says that no validation file is given.
    The report is unfinished if `should_stop` ever said so.
    """
    types = {name: column.type for name, column in dataset.schema.columns.items()}
    used = _used(spec, types)
    report = Report(len(dataset.rows), types, issues=list(_known(dataset, used, role)))
    if not dataset.rows:
        return report
    report.issues += _column_issues(spec, types, used)
    splits = [_split(row, role) for row in dataset.rows]
    report.counts = {str(split): count for split, count in sorted(Counter(splits).items())}
    probe = _Probe(dataset, used, _seconds(dataset, spec))
    for row in dataset.rows:
        if should_stop():
            return report
        report.issues += probe.issues(row)
    report.issues += _repeated(dataset.rows, list(used))
    report.task = task_of(dataset) if spec.task == "auto" else Task(spec.task)
    trained = None if role == "training" else classes
    report.classes, of_classes = class_issues(dataset, splits, trained, report.task)
    report.issues += [*of_classes, *spec_issues(spec, report.task, report.classes)]
    if role == "training":
        report.issues += _size_issues(dataset.rows, splits.count(Split.TRAIN), hold_out)
    return report


def _split(row: Row, role: str) -> Split:
    """A validation or test file counts whole, whatever its rows say."""
    return Split(row.split) if row.split and role == "training" else _SPLIT_OF_ROLE[role]


def _used(spec: Multimodal, types: Mapping[str, ColumnType]) -> dict[str, ColumnType]:
    """The columns that the towers read; all that an encoder can read if none is named."""
    names = spec.towers or types
    return {name: types[name] for name in sorted(names) if types.get(name) in MODALITIES}


def _known(dataset: Dataset, used: Mapping[str, ColumnType], role: str) -> Iterator[Issue]:
    """What was found while reading the table, without what this job does not touch."""
    for issue in dataset.issues:
        idle_column = issue.column in dataset.schema.columns and issue.column not in used
        idle_role = issue.code == Code.UNKNOWN_SPLIT or issue.param in _FOR_TRAINING
        if not idle_column and not (idle_role and role != "training"):
            yield issue


def _column_issues(
    spec: Multimodal, types: Mapping[str, ColumnType], used: Mapping[str, ColumnType]
) -> Iterator[Issue]:
    there = ", ".join(f"{name} ({kind})" for name, kind in sorted(types.items())[:50]) or "none"
    if not spec.towers and not used:
        message = f"No column is text, image or audio; there are: {there}. Add one, or name it in the schema."
        yield Issue(Code.MISSING_COLUMN, message)
    for name in sorted(set(spec.towers) - set(used)):
        why = f"reads text, image or audio, not {types[name]}" if name in types else "has no column"
        message = f"The tower '{name}' {why}; there are: {there}."
        code = Code.SCHEMA_MISMATCH if name in types else Code.MISSING_COLUMN
        yield Issue(code, message, column=name, param=f"multimodal.towers.{name}")


def _seconds(dataset: Dataset, spec: Multimodal) -> dict[str, float | None]:
    """How much of each column's sounds is read."""
    columns = dataset.schema.columns
    towers = {name: tower.max_seconds for name, tower in spec.towers.items()}
    return {name: towers.get(name) or column.max_seconds for name, column in columns.items()}


class _Probe:
    """Looks at rows; a file that many rows share is read once."""

    def __init__(
        self, dataset: Dataset, used: Mapping[str, ColumnType], seconds: Mapping[str, float | None]
    ) -> None:
        self._dataset, self._used, self._seconds = dataset, used, seconds
        self._named = {(issue.line, issue.column) for issue in errors_in(dataset.issues)}
        self._found: dict[tuple[str, MediaRef], tuple[Code, str] | None] = {}

    def issues(self, row: Row) -> Iterator[Issue]:
        for name in self._used:
            value = row.values[name]
            if isinstance(value, MediaRef) and (problem := self._problem(name, value)):
                code, words = problem
                shown = excerpt(value.name)
                yield Issue(code, f"'{shown}': {words}.", row.line, name, shown)
        # A cell that was refused is no missing one, and has its issue already.
        is_empty = all(
            row.values[name] is None and (row.line, name) not in self._named for name in self._used
        )
        if self._used and is_empty:
            message = f"The row has none of {', '.join(self._used)}; give it one, or remove it."
            yield Issue(Code.ALL_MODALITIES_MISSING, message, row.line)

    def _problem(self, name: str, ref: MediaRef) -> tuple[Code, str] | None:
        if (name, ref) not in self._found:
            self._found[name, ref] = self._look(name, ref)
        return self._found[name, ref]

    def _look(self, name: str, ref: MediaRef) -> tuple[Code, str] | None:
        try:
            data = self._dataset.read(ref)
            if self._used[name] is ColumnType.IMAGE:
                probe_image(data)
            else:
                probe_audio(data, self._seconds[name])
        except (Unreadable, Undecodable) as error:
            return error.code, error.message
        return None


def _repeated(rows: Sequence[Row], used: Sequence[str]) -> Iterator[Issue]:
    first: dict[object, int] = {}
    for row in rows:
        content = (row.label, *(row.values[name] for name in used))
        seen = first.setdefault(content, row.line)
        if seen != row.line and any(content[1:]):
            message = f"The row says the same as line {seen}; remove one."
            yield Issue(Code.DUPLICATE_ROW, message, row.line, severity="warning")


def _size_issues(rows: Sequence[Row], training: int, hold_out: bool) -> Iterator[Issue]:
    if training < MIN_ROWS:
        message = f"There are {training} training rows; at least {MIN_ROWS} are needed. Add some."
        yield Issue(Code.TOO_FEW_EXAMPLES, message)
        return
    try:
        assign_splits(rows, 0, hold_out=hold_out)
    except EngineError as error:
        yield Issue(error.code, error.message)

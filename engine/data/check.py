"""Reads every row and every picture and sound that the towers will, and lists every problem. Loads no torch."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from domain.bad_rows import BadRows
from domain.errors import EngineError
from domain.manifest import Code, ColumnType, Issue, Split, errors_in
from domain.specs import Multimodal
from domain.tasks import Task
from engine.data.balance import class_imbalance, lone_classes, missing_rates
from engine.data.cells import Cells, long_texts
from engine.data.classes import class_issues, spec_issues, task_of
from engine.data.holdout import assign_splits
from engine.data.lengths import DEFAULT_MAX_SECONDS, TextLimit
from engine.data.manifest import Dataset, Row, class_name
from engine.data.overlap import Contents, contents_of, overlap, repeated
from engine.data.sieve import is_of_row, relevant, sieved, used_columns, widened

__all__ = ["MIN_ROWS", "Report", "check", "class_name"]

#: Of fewer rows nothing is left to learn from once some are held out.
MIN_ROWS = 4

_SPLIT_OF_ROLE = {"training": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}
_LEFT_OUT = "This row is left out."
_MASKED = "The cell counts as missing."


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
    #: What is left out or taken as missing; empty unless the spec's `on_bad_row` allows it.
    bad: BadRows = field(default_factory=BadRows)
    #: What the training rows hold, to be compared with other files.
    contents: Contents = field(default_factory=Contents, repr=False)

    @property
    def errors(self) -> list[Issue]:
        return errors_in(self.issues)


def check(
    dataset: Dataset,
    spec: Multimodal,
    *,
    role: str = "training",
    trained: Report | None = None,
    hold_out: bool = True,
    text_limits: Mapping[str, TextLimit] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Every problem that `dataset` has as a `training`, `validation` or `test` file.

    `trained` is the training file's report, for the other two; `hold_out` says that no validation file is
    given. `progress` hears of rows done and of all rows. The report is unfinished if `should_stop` ever said so.
    """
    types = {name: column.type for name, column in dataset.schema.columns.items()}
    used = used_columns(spec.towers, types)
    report = Report(len(dataset.rows), types, issues=list(relevant(dataset, used, role)))
    if not dataset.rows:
        return report
    report.issues += _column_issues(spec, types, used)
    cells = Cells(dataset, used, _seconds(dataset, spec))
    for number, row in enumerate(dataset.rows):
        if should_stop():
            return report
        progress(number, len(dataset.rows))
        report.issues += cells.issues(row)
    report.issues += long_texts(dataset.rows, text_limits or {})
    progress(len(dataset.rows), len(dataset.rows))
    whole = _Whole(spec, role, trained, hold_out, cells.digests, list(used))
    return _settled(report, dataset, spec, used, whole)


def _column_issues(
    spec: Multimodal, types: Mapping[str, ColumnType], used: Mapping[str, ColumnType]
) -> Iterator[Issue]:
    there = ", ".join(f"{name} ({kind})" for name, kind in sorted(types.items())[:50]) or "none"
    if not spec.towers and not used:
        message = f"No column is text, image or audio; there are: {there}. Add one, or name it in the schema."
        yield Issue(Code.MISSING_COLUMN, message)
    for name in sorted(set(spec.towers) - set(used)):
        why = f"reads text, image or audio, not {types[name]}" if name in types else "has no column"
        message = f"The tower '{name}' {why}; name one of: {there}."
        code = Code.SCHEMA_MISMATCH if name in types else Code.MISSING_COLUMN
        yield Issue(code, message, column=name, param=f"multimodal.towers.{name}")


def _seconds(dataset: Dataset, spec: Multimodal) -> dict[str, float]:
    """How much of each column's sounds is read."""
    columns = dataset.schema.columns
    towers = {name: tower.max_seconds for name, tower in spec.towers.items()}
    return {
        name: towers.get(name) or column.max_seconds or DEFAULT_MAX_SECONDS
        for name, column in columns.items()
    }


@dataclass(frozen=True)
class _Whole:
    """What is asked of rows together: it is asked again once some are left out."""

    spec: Multimodal
    role: str
    trained: Report | None
    hold_out: bool
    digests: Mapping[int, bytes]
    used: Sequence[str]

    def issues(self, dataset: Dataset, report: Report) -> list[Issue]:
        """The problems; classes, counts and contents go into `report`."""
        rows = dataset.rows
        if not rows:
            message = "No row is left that could be used; correct the bad ones."
            return [Issue(Code.TOO_FEW_EXAMPLES, message)]
        splits = [self._split(row) for row in rows]
        report.counts = {str(split): count for split, count in sorted(Counter(splits).items())}
        training = [row for row, split in zip(rows, splits, strict=True) if split is Split.TRAIN]
        others = [row for row, split in zip(rows, splits, strict=True) if split is not Split.TRAIN]
        known = None if self.role == "training" or self.trained is None else self.trained.classes
        report.task = task_of(dataset) if self.spec.task == "auto" else Task(self.spec.task)
        report.classes, found = class_issues(dataset, splits, known, report.task)
        found += spec_issues(self.spec, report.task, report.classes)
        report.contents = contents_of(training, self.digests)
        found += repeated(rows, self.digests)
        found += overlap(others, self.digests, self._learned(report))
        found += missing_rates(rows, self.used)
        if self.role == "training":
            found += class_imbalance(training, report.task, dataset.schema.label)
            found += lone_classes(training, report.task, dataset.schema.label)
            found += _size_issues(rows, len(training), self.hold_out)
        return found

    def _split(self, row: Row) -> Split:
        """A validation or test file counts whole, whatever its rows say."""
        return Split(row.split) if row.split and self.role == "training" else _SPLIT_OF_ROLE[self.role]

    def _learned(self, report: Report) -> Contents:
        if self.role == "training":
            return report.contents
        other = self.trained.contents if self.trained else Contents()
        return dataclasses.replace(other, where="of the training file")


def _size_issues(rows: Sequence[Row], training: int, hold_out: bool) -> Iterator[Issue]:
    if training < MIN_ROWS:
        message = f"There are {training} training rows; at least {MIN_ROWS} are needed. Add some."
        yield Issue(Code.TOO_FEW_EXAMPLES, message)
        return
    try:
        assign_splits(rows, 0, hold_out=hold_out)
    except EngineError as error:
        yield Issue(error.code, error.message)


def _settled(
    report: Report, dataset: Dataset, spec: Multimodal, used: Mapping[str, ColumnType], whole: _Whole
) -> Report:
    """The report, once it is decided which bad rows the job does without."""
    strict = whole.issues(dataset, report)
    alone = [issue for issue in report.issues if not is_of_row(issue)]
    fatal = [issue for issue in (*report.issues, *strict) if is_of_row(issue)]
    if spec.on_bad_row == "fail" or not fatal or not dataset.is_whole:
        report.issues += strict
        return report
    kept, bad, excused, together = dataset, BadRows(), list[Issue](), strict
    # What is left may have problems of its own: a class that only bad rows were trained on.
    while fatal:
        excused += fatal
        bad = widened(bad, fatal, dataset, used, spec.on_bad_row)
        kept = sieved(dataset, bad)
        together = whole.issues(kept, report)
        fatal = [issue for issue in together if is_of_row(issue)]
    total = len({row.line for row in dataset.rows} | bad.skipped)
    if len(bad) > spec.max_bad_fraction * total:
        report.issues += [*strict, _too_many(len(bad), total, spec.max_bad_fraction)]
        return report
    report.bad = bad
    report.issues = [*_excused(excused, bad), *alone, *together]
    return report


def _excused(errors: Iterable[Issue], bad: BadRows) -> Iterator[Issue]:
    for issue in errors:
        fate = _LEFT_OUT if issue.line in bad.skipped else _MASKED
        yield dataclasses.replace(issue, message=f"{issue.message} {fate}", severity="warning")


def _too_many(bad: int, total: int, allowed: float) -> Issue:
    message = (
        f"{bad} of {total} rows are bad ({bad / total:.2%}), and max_bad_fraction allows {allowed:.2%}; "
        "correct them, or allow more."
    )
    return Issue(Code.TOO_MANY_BAD_ROWS, message, param="multimodal.max_bad_fraction")

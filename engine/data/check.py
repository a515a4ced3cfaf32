"""Reads every row and every picture and sound that the towers will, and lists every problem. Loads no torch."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from domain.bad_rows import BadRows
from domain.manifest import Code, ColumnType, Issue, Split
from domain.specs import Multimodal
from domain.tasks import Task
from domain.towers import MOST_TOWERS
from engine.data.balance import class_imbalance, lone_classes, missing_rates
from engine.data.cells import Cells, Texts
from engine.data.classes import spec_issues, task_of
from engine.data.holdout import TOO_FEW_GROUPS
from engine.data.issues import Issues
from engine.data.ledger import Book, Ledger
from engine.data.lengths import DEFAULT_MAX_SECONDS, TextLimit
from engine.data.manifest import Dataset, class_name
from engine.data.overlap import Contents, contents_of, overlap, repeated
from engine.data.pairs import lone_columns, without_labels
from engine.data.profile import Profiles, default_columns
from engine.data.readings import class_issues, no_generation
from engine.data.sieve import is_of_row, relevant, sieved, used_columns, widened
from engine.data.silence import silenced

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
    #: The columns that towers read: the spec's, or those that towers are made of where it names none.
    used: dict[str, ColumnType] = field(default_factory=dict)
    issues: Issues = field(default_factory=Issues)
    #: What is left out or taken as missing; empty unless the spec's `on_bad_row` allows it.
    bad: BadRows = field(default_factory=BadRows)
    #: What the training rows hold, to be compared with other files.
    contents: Contents = field(default_factory=Contents, repr=False)

    @property
    def errors(self) -> list[Issue]:
        """For files with few of them; `issues.errors` counts them."""
        return [issue for issue in self.issues if issue.severity == "error"]


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
    given. `probe` looks into media. `progress` hears of rows done and of all rows. The report is unfinished if `should_stop` ever said so.
    """
    types = {name: column.type for name, column in dataset.schema.columns.items()}
    used, idle = _used(dataset, spec, types, trained, should_stop)
    reading = relevant(dataset, used, role)
    if spec.task == Task.CONTRASTIVE:
        reading = without_labels(reading, dataset)
    known = Issues(chain(reading, idle))
    report = Report(len(dataset.rows), types, used=used, issues=known)
    if not dataset.rows:
        return report
    report.issues += _column_issues(spec, types, used)
    if trained is None:
        report.issues += _tower_issues(spec, types, used)
    profiles = Profiles(used if spec.towers and role == "training" else {})
    cells, texts = Cells(dataset, used, _seconds(dataset, spec)), Texts(text_limits or {})
    book = Book(used, _SPLIT_OF_ROLE[role])
    for number, row in enumerate(dataset.ahead(used)):
        if should_stop():
            return report
        progress(number, len(dataset.rows))
        row = silenced(dataset, row, used)
        content, issues = cells.look(row)
        report.issues += issues
        texts.add(row)
        book.add(row, content)
        profiles.add(row)
    texts.close()
    report.issues += [*texts.issues, *profiles.doubts()]
    progress(len(dataset.rows), len(dataset.rows))
    whole = _Whole(spec, dataset, role, trained, hold_out)
    return _settled(report, dataset, spec, used, whole, book.closed())


def _used(
    dataset: Dataset,
    spec: Multimodal,
    types: Mapping[str, ColumnType],
    trained: Report | None,
    should_stop: Callable[[], bool],
) -> tuple[dict[str, ColumnType], list[Issue]]:
    """The columns that towers read, and warnings of those that none is made of. The training file decides for all."""
    if towers := spec.towers or (trained.used if trained else {}):
        return used_columns(towers, types), []
    return default_columns(dataset.rows, types, should_stop)


def _column_issues(
    spec: Multimodal, types: Mapping[str, ColumnType], used: Mapping[str, ColumnType]
) -> Iterator[Issue]:
    there = ", ".join(f"{name} ({kind})" for name, kind in sorted(types.items())[:50]) or "none"
    if not spec.towers and not used:
        message = f"No column can be learned from; there are: {there}. Add one, or name it in the schema."
        yield Issue(Code.MISSING_COLUMN, message)
    for name in sorted(set(spec.towers) - set(types)):
        message = f"The tower '{name}' has no column; name one of: {there}."
        yield Issue(Code.MISSING_COLUMN, message, column=name, param=f"multimodal.towers.{name}")


def _tower_issues(
    spec: Multimodal, types: Mapping[str, ColumnType], used: Mapping[str, ColumnType]
) -> Iterator[Issue]:
    """What the spec could not know before the columns had their types."""
    if len(used) > MOST_TOWERS:
        message = (
            f"{len(used)} columns can be learned from, and a model has at most {MOST_TOWERS} towers; "
            "write the spec's towers down."
        )
        yield Issue(Code.SCHEMA_MISMATCH, message, param="multimodal.towers")
    for path, reason in spec.tower_misfits(types):
        name = path.split(".", 1)[1].rpartition(".")[0]
        message = f"{path}: {reason}."
        yield Issue(Code.SCHEMA_MISMATCH, message, column=name, param=f"multimodal.{path}")


def _seconds(dataset: Dataset, spec: Multimodal) -> dict[str, float | None]:
    """How much of each column's sounds and films is read; of a film all, if nothing is said."""
    columns = dataset.schema.columns
    towers = {name: tower.max_seconds for name, tower in spec.towers.items()}
    return {
        name: towers.get(name)
        or column.max_seconds
        or (None if column.type is ColumnType.VIDEO else DEFAULT_MAX_SECONDS)
        for name, column in columns.items()
    }


@dataclass(frozen=True)
class _Whole:
    """What is asked of rows together: it is asked again once some are left out."""

    spec: Multimodal
    dataset: Dataset
    role: str
    trained: Report | None
    hold_out: bool

    def issues(self, rows: Ledger, report: Report) -> Issues:
        """The problems; classes, counts and contents go into `report`."""
        if not len(rows):
            message = "No row is left that could be used; correct the bad ones."
            return Issues([Issue(Code.TOO_FEW_EXAMPLES, message)])
        report.counts = rows.counts
        training, others = rows.where(rows.training), rows.where(~rows.training)
        known = None if self.role == "training" or self.trained is None else self.trained.classes
        auto = self.spec.task == "auto"
        report.task = task_of(rows.tally, typed=self.dataset.typed) if auto else Task(self.spec.task)
        is_labelled = report.task is not Task.CONTRASTIVE
        if is_labelled:
            report.classes, found = class_issues(rows, self.dataset, known, report.task)
        else:
            report.classes, found = [], Issues(lone_columns(rows, self.role))
        found += spec_issues(self.spec, report.task, report.classes)
        if refusal := no_generation(self.dataset, self.spec):
            # Free text is judged as no class.
            report.classes, found = [], Issues(i for i in found if i.code == Code.LABEL_MISSING)
            found.append(refusal)
        report.contents = contents_of(training)
        found += repeated(rows, labelled=is_labelled)
        found += overlap(others, self._learned(report))
        found += missing_rates(rows)
        if self.role == "training" and is_labelled and not refusal and report.task is not Task.GENERATION:
            found += class_imbalance(training.tally, report.task, self.dataset.schema.label)
            found += lone_classes(training.tally, report.task, self.dataset.schema.label)
        if self.role == "training":
            found += _size_issues(training, list(self._held_out(rows)))
        return found

    def _held_out(self, rows: Ledger) -> Iterator[Split]:
        """The splits that are made of training rows."""
        if self.hold_out and str(Split.VALIDATION) not in rows.counts:
            yield Split.VALIDATION
        if self.spec.hold_out.test and not self.spec.test_file and str(Split.TEST) not in rows.counts:
            yield Split.TEST

    def _learned(self, report: Report) -> Contents:
        if self.role == "training":
            return report.contents
        other = self.trained.contents if self.trained else Contents()
        return dataclasses.replace(other, where="of the training file")


def _size_issues(training: Ledger, held_out: Sequence[Split]) -> Iterator[Issue]:
    if len(training) < MIN_ROWS:
        message = f"There are {len(training)} training rows; at least {MIN_ROWS} are needed. Add some."
        yield Issue(Code.TOO_FEW_EXAMPLES, message)
    elif held_out and training.parts <= len(held_out):
        yield Issue(Code.TOO_FEW_EXAMPLES, TOO_FEW_GROUPS)


def _settled(
    report: Report,
    dataset: Dataset,
    spec: Multimodal,
    used: Mapping[str, ColumnType],
    whole: _Whole,
    rows: Ledger,
) -> Report:
    """The report, once it is decided which bad rows the job does without."""
    strict = whole.issues(rows, report)
    if spec.on_bad_row == "fail" or not dataset.is_whole:
        report.issues += strict
        return report
    fatal = Issues(issue for issue in chain(report.issues, strict) if is_of_row(issue))
    alone = (issue for issue in report.issues if not is_of_row(issue))
    bad, excused, together = BadRows(), Issues(), strict
    if not fatal:
        report.issues += strict
        return report
    # What is left may have problems of its own: a class that only bad rows were trained on.
    while fatal:
        excused += fatal
        bad = widened(bad, fatal, dataset, used, spec.on_bad_row)
        left = dataclasses.replace(whole, dataset=sieved(dataset, bad))
        together = left.issues(rows.without(bad), report)
        fatal = Issues(issue for issue in together if is_of_row(issue))
    total = len(bad.skipped.union(rows.lines.tolist()))
    if len(bad) > spec.max_bad_fraction * total:
        report.issues += strict
        report.issues.append(_too_many(len(bad), total, spec.max_bad_fraction))
        return report
    report.bad = bad
    report.issues = Issues(chain(_excused(excused, bad), alone, together))
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

"""The files of a job as labelled rows: which train, which validate, which test, and the classes they have."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from domain.bad_rows import BadRows
from domain.errors import EngineError
from domain.manifest import TABULAR, Code, ColumnType, Schema, Split
from domain.presets import spelled_out
from domain.specs import Multimodal
from domain.tasks import Task
from engine.data.classes import Label, Mislabelled, names_of, read_label, task_of
from engine.data.column_statistics import Statistics, measured
from engine.data.dataset import Example
from engine.data.holdout import assign_splits
from engine.data.ledger import Tally
from engine.data.manifest import Dataset, Row, open_dataset
from engine.data.media import IN_PLACE, Media
from engine.data.pairs import without_labels
from engine.data.profile import default_columns
from engine.data.readings import no_generation
from engine.data.sieve import relevant, sieved, used_columns
from engine.data.targets import Goal, goal_of, target_tensor
from engine.data.uploads import Lookup


@dataclass(frozen=True)
class Splits:
    schema: Schema
    goal: Goal
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    #: The columns that towers read: the spec's, or those that towers are made of where it names none.
    used: Mapping[str, ColumnType]
    #: Rows that were left out, and rows with a cell that counts as missing.
    skipped: int = 0
    masked: int = 0

    @property
    def all(self) -> list[Example]:
        return [*self.train, *self.validation, *self.test]

    @cached_property
    def targets(self) -> Tensor:
        """Of `all`, as the loss takes them."""
        return target_tensor(self.goal, [example.label for example in self.all])

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """Of the number and category columns that towers read, over the rows that train."""
        if self.goal.task is Task.GENERATION:
            # A language model reads them as text.
            return {}
        return {
            name: measured([e.row.values[name] for e in self.train if e.has(name)], kind)
            for name, kind in self.used.items()
            if kind in TABULAR
        }


def open_splits(
    files: ExitStack,
    spec: Multimodal,
    training: Path,
    validation: Path | None,
    test: Path | None,
    seed: int,
    bad_rows: Mapping[str, BadRows] | None = None,
    names: Mapping[str, str] | None = None,
    uploads: Lookup | None = None,
    media: Media = IN_PLACE,
) -> Splits:
    """A validation or test file counts whole; without one, the training file's own rows of that split do.

    `files` closes what stays open for reading media. What no tower reads may be wrong; `bad_rows` are, by the spec's field, what a check of the files decided to do without, and
    `names` what they were called when they were uploaded; `uploads` looks up the files that cells name by their ids.
    """
    bad = bad_rows or {}
    opener = _Opener(files, bad, names or {}, uploads, media, spec.task != Task.CONTRASTIVE)
    main, used = opener.open(
        training, spec.schema_, "training_file", lambda types: spelled_out(spec, types).towers
    )
    if refusal := no_generation(main, spec):
        raise EngineError(refusal.code, refusal.message, param=refusal.param)
    task = task_of(Tally.of(main.rows), typed=main.typed) if spec.task == "auto" else Task(spec.task)
    rows = _labelled(main.rows, task)
    given = {Split.VALIDATION: (validation, "validation_file"), Split.TEST: (test, "multimodal.test_file")}
    # A held-out row's class is trained on all the same, or at least known.
    known = [_label(row) for row in rows if (row.split or Split.TRAIN) == Split.TRAIN]
    if not known:
        raise EngineError(Code.EMPTY_FILE, "there is no row to train on", param="training_file")
    # The test rows first: they stay the same when the validation's share changes.
    shares = {Split.TEST: spec.hold_out.test, Split.VALIDATION: spec.hold_out.validation}
    wanted = {split: share for split, share in shares.items() if given[split][0] is None}
    made = {
        split: [Example(main, rows[n], _label(rows[n])) for n in numbers]
        for split, numbers in assign_splits(_to_be_held(rows, task), seed, wanted).items()
    }
    for split, (path, param) in given.items():
        if path is not None:
            # All of it: what the user left open must not be inferred anew from other rows.
            other, _ = opener.open(path, main.schema, param, lambda _: used)
            made[split] = [Example(other, row, _label(row)) for row in _labelled(other.rows, task)]
    goal = goal_of(task, known, [example.label for example in made[Split.TRAIN]], used)
    _refuse_unknown(goal, made)
    return Splits(
        main.schema,
        goal,
        made[Split.TRAIN],
        made[Split.VALIDATION],
        made[Split.TEST],
        used,
        skipped=sum(len(rows.skipped) for rows in bad.values()),
        masked=sum(len(rows.masked_rows) for rows in bad.values()),
    )


#: The columns' types -> the names of the towers.
_TowersFor = Callable[[Mapping[str, ColumnType]], Collection[str]]


@dataclass(frozen=True)
class _Opener:
    """Opens a job's files; what it is told of them goes by the spec's field."""

    files: ExitStack
    bad_rows: Mapping[str, BadRows]
    names: Mapping[str, str]
    uploads: Lookup | None
    media: Media
    labelled: bool

    def open(
        self, path: Path, schema: Schema | None, param: str, towers_for: _TowersFor
    ) -> tuple[Dataset, dict[str, ColumnType]]:
        """The data set, and the columns of it that the towers read (without any: those that towers are made of).

        Told by its name as the check told it: a stored upload has none of its own.
        """
        dataset = self.files.enter_context(
            open_dataset(
                path, schema=schema, filename=self.names.get(param), uploads=self.uploads, media=self.media
            )
        )
        types = {name: column.type for name, column in dataset.schema.columns.items()}
        towers = towers_for(types)
        # Before it is sieved, as a check does: both must choose the same.
        used = used_columns(towers, types) if towers else default_columns(dataset.rows, types)[0]
        dataset = sieved(dataset, self.bad_rows.get(param, BadRows()))
        role = "training" if param == "training_file" else "measuring"
        issues = relevant(dataset, used, role)
        issues = issues if self.labelled else without_labels(issues, dataset)
        if problem := next((i for i in issues if i.severity == "error"), None):
            raise EngineError(problem.code, problem.message, param=param)
        return dataset, used


def _labelled(rows: Sequence[Row], task: Task) -> list[Row]:
    """The rows with their labels as the task reads them."""
    if task is Task.CONTRASTIVE:
        return [replace(row, label=()) for row in rows]
    read = []
    for row in rows:
        if row.label is None:
            raise EngineError(Code.LABEL_MISSING, f"line {row.line}: there is no label")
        try:
            read.append(replace(row, label=read_label(row.label, task)))
        except Mislabelled as error:
            raise EngineError(Code.LABEL_TYPE_MISMATCH, f"line {row.line}: the label {error}") from error
    return read


def _to_be_held(rows: list[Row], task: Task) -> list[Row]:
    """As what may be held out is drawn: a text that is to be written is no class that would lose its last example."""
    return [replace(row, label=None) for row in rows] if task is Task.GENERATION else rows


def _label(row: Row) -> Label:
    assert row.label is not None  # `_labelled` refuses such rows
    return row.label


def _refuse_unknown(goal: Goal, made: dict[Split, list[Example]]) -> None:
    if goal.task is Task.GENERATION:
        return
    known = set(goal.classes)
    for example in (example for examples in made.values() for example in examples):
        strange = next((name for name in names_of(example.label) if name not in known), None)
        if strange is not None:
            message = f"line {example.row.line}: class '{strange}' is not among those trained on"
            raise EngineError(Code.UNKNOWN_CLASS, message)

"""The files of a job as labelled rows: which train, which validate, which test, and the classes they have."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from domain.bad_rows import BadRows
from domain.errors import EngineError
from domain.manifest import Code, Schema, Split, errors_in
from engine.data.check import class_name
from engine.data.dataset import Example
from engine.data.holdout import assign_splits
from engine.data.manifest import Dataset, Row, open_dataset
from engine.data.sieve import relevant, sieved, used_columns


@dataclass(frozen=True)
class Splits:
    schema: Schema
    #: In the order of the head's outputs.
    classes: list[str]
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    #: Rows that were left out, and rows with a cell that counts as missing.
    skipped: int = 0
    masked: int = 0

    @property
    def all(self) -> list[Example]:
        return [*self.train, *self.validation, *self.test]


def open_splits(
    files: ExitStack,
    schema: Schema | None,
    training: Path,
    validation: Path | None,
    test: Path | None,
    seed: int,
    towers: Collection[str] = (),
    bad_rows: Mapping[str, BadRows] | None = None,
) -> Splits:
    """A validation or test file counts whole; without one, the training file's own rows of that split do.

    `files` closes what stays open for reading media. What no tower of `towers` (all, if empty) reads may be
    wrong; `bad_rows` are, by the spec's field, what a check of the files decided to do without.
    """
    bad = bad_rows or {}
    main = files.enter_context(_open(training, schema, "training_file", towers, bad))
    given = {Split.VALIDATION: (validation, "validation_file"), Split.TEST: (test, "multimodal.test_file")}
    # A held-out row's class is trained on all the same, or at least known.
    classes = sorted({_label(row) for row in main.rows if (row.split or Split.TRAIN) == Split.TRAIN})
    if not classes:
        raise EngineError(Code.EMPTY_FILE, "there is no row to train on", param="training_file")
    made = {
        split: _examples(main, [main.rows[n] for n in numbers], classes)
        for split, numbers in assign_splits(main.rows, seed, hold_out=validation is None).items()
    }
    for split, (path, param) in given.items():
        if path is not None:
            other = files.enter_context(_open(path, schema or main.schema, param, towers, bad))
            made[split] = _examples(other, other.rows, classes)
    return Splits(
        main.schema,
        classes,
        made[Split.TRAIN],
        made[Split.VALIDATION],
        made[Split.TEST],
        skipped=sum(len(rows.skipped) for rows in bad.values()),
        masked=sum(len(rows.masked_rows) for rows in bad.values()),
    )


def _open(
    path: Path, schema: Schema | None, param: str, towers: Collection[str], bad_rows: Mapping[str, BadRows]
) -> Dataset:
    """A stored upload has no suffix: what is neither a zip nor JSON lines is read as CSV."""
    dataset = open_dataset(path, schema=schema, filename=path.name if path.suffix else "table.csv")
    dataset = sieved(dataset, bad_rows.get(param, BadRows()))
    used = used_columns(towers, {name: column.type for name, column in dataset.schema.columns.items()})
    role = "training" if param == "training_file" else "measuring"
    problems = errors_in(list(relevant(dataset, used, role)))
    if problems:
        dataset.close()
        raise EngineError(problems[0].code, problems[0].message, param=param)
    return dataset


def _examples(dataset: Dataset, rows: Sequence[Row], classes: list[str]) -> list[Example]:
    place = {name: i for i, name in enumerate(classes)}
    strange = next((row for row in rows if _label(row) not in place), None)
    if strange is not None:
        message = f"line {strange.line}: class '{_label(strange)}' is not among those trained on"
        raise EngineError(Code.UNKNOWN_CLASS, message)
    return [Example(dataset, row, place[_label(row)]) for row in rows]


def _label(row: Row) -> str:
    if row.label is None:
        raise EngineError(Code.LABEL_MISSING, f"line {row.line}: there is no label")
    return class_name(row.label)

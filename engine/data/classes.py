"""What labels mean to a task, and what is wrong with them. Reads no media."""

import math
from collections.abc import Iterator, Sequence

from domain.manifest import Code, Issue, Split, errors_in
from domain.specs import Multimodal
from domain.tasks import Task
from engine.data.manifest import Dataset, Row
from engine.data.tables import excerpt

#: A class's name, a multilabel row's names, or a regression's number.
Label = str | tuple[str, ...] | float

#: In CSV, and in one string of JSON, between a row's labels.
SEPARATOR = ";"
#: Larger numbers are mistakes, and their squares would be no numbers.
_LARGEST = 1e30
#: Characters of all classes' names together: they stand in the job's row and in every answer about it.
MOST_NAMES = 1_000_000
#: Of one name: a prediction repeats it for every row.
_LONGEST_NAME = 200


class Mislabelled(ValueError):
    """A label that the task cannot read; the message says what it should be."""


def task_of(dataset: Dataset) -> Task:
    """What most labels are: lists mean multilabel, measured numbers regression, words and whole numbers classes."""
    labels = [row.label for row in dataset.rows if row.label is not None]
    several = sum(isinstance(label, tuple) for label in labels)
    if not dataset.typed:
        several = _lists_in_csv([label for label in labels if isinstance(label, str)])
    measured = sum(isinstance(label, float) for label in labels)
    numbers = measured + sum(isinstance(label, str) and _number(label) is not None for label in labels)
    if several and 2 * several >= len(labels):
        return Task.MULTILABEL
    return Task.REGRESSION if measured and 2 * numbers > len(labels) else Task.CLASSIFICATION


def _lists_in_csv(labels: Sequence[str]) -> int:
    """How many are lists. Where they name what other rows have alone, those are lists of one."""
    joined = [label for label in labels if SEPARATOR in label]
    parts = {name for label in joined for name in _parts(label)}
    alone = set(labels) & parts
    return len(labels) if joined and 2 * len(alone) >= len(parts) else len(joined)


def _parts(label: str) -> tuple[str, ...]:
    """The names in a list that is written as one string, sorted."""
    return tuple(sorted({name for part in label.split(SEPARATOR) if (name := part.strip())}))


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_label(label: str | tuple[str, ...] | float, task: Task) -> Label:
    """A row's label as `task` reads it; raises Mislabelled."""
    if task is Task.REGRESSION:
        number = _number(label) if isinstance(label, str) else label
        if not isinstance(number, float) or not abs(number) <= _LARGEST:
            raise Mislabelled("must be a finite number; for classes set task to classification")
        return number
    if isinstance(label, float):
        raise Mislabelled(
            "must be a word or a whole number: a class, not a measured value; for those set task to regression"
        )
    if task is Task.MULTILABEL:
        named = {name for name in label if name} if isinstance(label, tuple) else _parts(label)
        return _short(tuple(sorted(named)))
    if isinstance(label, tuple):
        raise Mislabelled("must be one word or whole number; for lists of classes set task to multilabel")
    return _short(label)


def _short(label: Label) -> Label:
    if any(len(name) > _LONGEST_NAME for name in names_of(label)):
        raise Mislabelled(
            f"must have at most {_LONGEST_NAME} characters a class; name another column as label"
        )
    return label


def class_issues(
    dataset: Dataset, splits: Sequence[Split], trained: Sequence[str] | None, task: Task
) -> tuple[list[str], list[Issue]]:
    """The classes, sorted, and what is wrong. `trained` are those of another file that is trained on."""
    read, issues = _read(dataset, task)
    training = [
        read[row.line]
        for row, split in zip(dataset.rows, splits, strict=True)
        if split is Split.TRAIN and row.line in read
    ]
    known = sorted({name for label in training for name in names_of(label)} if trained is None else trained)
    if sum(map(len, known)) > MOST_NAMES:
        message = (
            f"The labels name {len(known)} classes, with more than {MOST_NAMES} characters together: that is a "
            "text rather than a label. Name another column as the schema's label, or shorten the names."
        )
        return [], [*issues, Issue(Code.LABEL_TYPE_MISMATCH, message, column=dataset.schema.label)]
    if known:
        issues += _unknown(read, dataset.schema.label, known)
    if trained is None and training and all(label == training[0] for label in training):
        shown = excerpt(SEPARATOR.join(names_of(training[0])) or training[0] or "without a label")
        message = f"Every training row is '{shown}'; add rows of another {_word(task)}."
        issues.append(Issue(Code.SINGLE_CLASS, message, column=dataset.schema.label))
    return known, issues


def spec_issues(spec: Multimodal, task: Task, known: Sequence[str]) -> Iterator[Issue]:
    """Options that do not fit the task that the labels mean, and weights of classes that are none."""
    for path, reason in spec.misfits(task):
        message = f"{path}: {reason}. Correct it, or set the task."
        yield Issue(Code.LABEL_TYPE_MISMATCH, message, param=f"multimodal.{path}")
    if isinstance(spec.loss.class_weights, dict):
        for name in sorted(set(spec.loss.class_weights) - set(known)):
            message = (
                f"class_weights names '{excerpt(name)}', which no training row is; correct or remove it."
            )
            yield Issue(
                Code.UNKNOWN_CLASS, message, param="multimodal.loss.class_weights", value=excerpt(name)
            )


def _word(task: Task) -> str:
    return "value" if task is Task.REGRESSION else "class"


def names_of(label: Label) -> tuple[str, ...]:
    """The classes that a label names; a number names none."""
    if isinstance(label, float):
        return ()
    return (label,) if isinstance(label, str) else label


def _read(dataset: Dataset, task: Task) -> tuple[dict[int, Label], list[Issue]]:
    """Line -> label, and an issue for every row that has none that the task can read."""
    name, read, issues = dataset.schema.label, {}, []
    refused = {issue.line for issue in errors_in(dataset.issues) if issue.code == Code.LABEL_TYPE_MISMATCH}
    if not refused and all(row.label is None for row in dataset.rows):
        looked_for = f"'{name}'" if name else "'label', 'target' or 'labels'"
        message = f"No row has {looked_for}; add it, or name another column as the schema's label."
        return {}, [Issue(Code.LABEL_MISSING, message, column=name)]
    for row in dataset.rows:
        if row.label is None:
            if row.line not in refused:
                message = f"'{name}' is missing; {_give(dataset, task)}, or remove it."
                issues.append(Issue(Code.LABEL_MISSING, message, row.line, name))
            continue
        try:
            read[row.line] = read_label(row.label, task)
        except Mislabelled as error:
            message = f"'{name}' {error}."
            issues.append(Issue(Code.LABEL_TYPE_MISMATCH, message, row.line, name, _shown(row)))
    return read, issues


def _give(dataset: Dataset, task: Task) -> str:
    if task is not Task.MULTILABEL:
        return "give the row one"
    return f"give the row some, write {'[]' if dataset.typed else SEPARATOR} if it has none"


def _shown(row: Row) -> str:
    return excerpt(SEPARATOR.join(row.label) if isinstance(row.label, tuple) else row.label)


def _unknown(read: dict[int, Label], name: str | None, known: Sequence[str]) -> Iterator[Issue]:
    there = ", ".join(excerpt(label) for label in known[:10]) + (", ..." if len(known) > 10 else "")
    classes = set(known)
    for line, label in read.items():
        for strange in names_of(label):
            if strange not in classes:
                shown = excerpt(strange)
                message = (
                    f"No training row is '{shown}'; correct it or train on it too. Trained are: {there}."
                )
                yield Issue(Code.UNKNOWN_CLASS, message, line, name, shown)

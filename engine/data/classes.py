"""What labels mean to a task, and what is wrong with them. Reads no media."""

import math
from collections.abc import Iterator, Mapping, Sequence

from domain.manifest import Code, Issue
from domain.specs import Multimodal
from domain.tasks import Task
from engine.data.ledger import Tally
from engine.data.tables import excerpt

#: A class's name, a multilabel row's names, or a regression's number.
Label = str | tuple[str, ...] | float

#: In CSV, and in one string of JSON, between a row's labels.
SEPARATOR = ";"
#: Larger numbers are mistakes, and their squares would be no numbers.
_LARGEST = 1e30
#: Of one name: a prediction repeats it for every row.
_LONGEST_NAME = 200
#: Of a text that is to be written: far more than a model writes.
_LONGEST_TEXT = 100_000


class Mislabelled(ValueError):
    """A label that the task cannot read; the message says what it should be."""


def task_of(labels: Tally, *, typed: bool) -> Task:
    """What most labels are: lists mean multilabel, measured numbers regression, words and whole numbers classes."""
    counts = labels.counts
    total = counts.total() + labels.measured
    several = sum(count for label, count in counts.items() if isinstance(label, tuple))
    if not typed:
        several = _lists_in_csv({label: n for label, n in counts.items() if isinstance(label, str)})
    whole = sum(n for label, n in counts.items() if isinstance(label, str) and _number(label) is not None)
    if several and 2 * several >= total:
        return Task.MULTILABEL
    return (
        Task.REGRESSION if labels.measured and 2 * (labels.measured + whole) > total else Task.CLASSIFICATION
    )


def _lists_in_csv(counts: Mapping[str, int]) -> int:
    """How many are lists. Where they name what other rows have alone, those are lists of one."""
    joined = {label: count for label, count in counts.items() if SEPARATOR in label}
    parts = {name for label in joined for name in _parts(label)}
    alone = counts.keys() & parts
    return sum(counts.values()) if joined and 2 * len(alone) >= len(parts) else sum(joined.values())


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
    if task is Task.GENERATION:
        return _written(label)
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


def _written(label: Label) -> str:
    """The text that is to be written; in CSV a number is one too."""
    if isinstance(label, tuple):
        raise Mislabelled("must be one text, not a list")
    text = str(label).strip()
    if not text:
        raise Mislabelled("must be a text, not blanks alone")
    if len(text) > _LONGEST_TEXT:
        raise Mislabelled(f"must have at most {_LONGEST_TEXT} characters; shorten it")
    return text


def _short(label: Label) -> Label:
    if any(len(name) > _LONGEST_NAME for name in names_of(label)):
        raise Mislabelled(
            f"must have at most {_LONGEST_NAME} characters a class; name another column as label"
        )
    return label


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


def names_of(label: Label) -> tuple[str, ...]:
    """The classes that a label names; a number names none. Of a generation no label is asked."""
    if isinstance(label, float):
        return ()
    return (label,) if isinstance(label, str) else label

"""A file's labels as a task reads them, each word once however many rows have it. Reads no media."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from domain.manifest import Code, Issue
from domain.specs import Multimodal
from domain.tasks import Task
from engine.data.classes import SEPARATOR, Label, Mislabelled, names_of, read_label
from engine.data.issues import Issues
from engine.data.ledger import MEASURED, NONE, Ledger
from engine.data.manifest import Dataset
from engine.data.tables import excerpt

#: Characters of all classes' names together: they stand in the job's row and in every answer about it.
MOST_NAMES = 1_000_000


def class_issues(
    rows: Ledger, dataset: Dataset, trained: Sequence[str] | None, task: Task
) -> tuple[list[str], Issues]:
    """The classes, sorted, and what is wrong. `trained` are those of another file that is trained on."""
    readings = Readings(rows, dataset, task)
    issues = readings.issues()
    if task is Task.GENERATION:
        # Texts to be written may all differ, or all be the same.
        return [], issues
    training = readings.of(rows.training)
    known = sorted({name for label in training for name in names_of(label)} if trained is None else trained)
    if sum(map(len, known)) > MOST_NAMES:
        message = (
            f"The labels name {len(known)} classes, with more than {MOST_NAMES} characters together: that is a "
            "text rather than a label. Name another column as the schema's label, or shorten the names."
        )
        issues.append(Issue(Code.LABEL_TYPE_MISMATCH, message, column=dataset.schema.label))
        return [], issues
    if known:
        issues += readings.unknown(known)
    if trained is None and len(training) == 1:
        (only,) = training
        shown = excerpt(SEPARATOR.join(names_of(only)) or only or "without a label")
        message = f"Every training row is '{shown}'; add rows of another {_word(task)}."
        issues.append(Issue(Code.SINGLE_CLASS, message, column=dataset.schema.label))
    return known, issues


def no_generation(dataset: Dataset, spec: Multimodal) -> Issue | None:
    """A chat file without a word on its task: what is to be learned of it must be said."""
    if not dataset.is_chat or spec.task != "auto":
        return None
    message = (
        "This is a chat file: to write answers like its last messages is the task generation, of model and "
        "multimodal.family vlm. If the answers are classes or numbers, set multimodal.task to one of "
        f"{', '.join(task for task in Task if task is not Task.GENERATION)}."
    )
    return Issue(Code.LABEL_TYPE_MISMATCH, message, param="multimodal.task")


def _word(task: Task) -> str:
    return "value" if task is Task.REGRESSION else "class"


class Readings:
    """What the labels of `rows` mean to `task`."""

    def __init__(self, rows: Ledger, dataset: Dataset, task: Task) -> None:
        self._rows, self._dataset, self._task = rows, dataset, task
        self._column = dataset.schema.label
        self._is_answer = dataset.is_chat and self._column == "label"
        #: By a label's place: what it means, or why it means nothing.
        self._read: list[Label | Mislabelled] = [_reading(word, task) for word in rows.words]

    def of(self, chosen: NDArray[np.bool_]) -> set[Label]:
        """What the labels of the chosen rows mean, each once."""
        found = np.unique(self._rows.labels[chosen & (self._rows.labels >= 0)])
        read = {label for n in found if not isinstance(label := self._read[n], Mislabelled)}
        measured = np.unique(self._rows.numbers[chosen & (self._rows.labels == MEASURED)]).tolist()
        return read | {n for n in measured if not isinstance(_reading(n, self._task), Mislabelled)}

    def issues(self) -> Issues:
        """One for every row whose label is missing or means nothing."""
        mismatched = ("error", str(Code.LABEL_TYPE_MISMATCH))
        refused = {
            i.line
            for i in (self._dataset.issues if self._dataset.issues.counts[mismatched] else ())
            if (i.severity, str(i.code)) == mismatched
        }
        missing = self._rows.labels == NONE
        if not refused and missing.all():
            looked_for = f"'{self._column}'" if self._column else "'label', 'target' or 'labels'"
            message = f"No row has {looked_for}; add it, or name another column as the schema's label."
            if len(self._rows.used) > 1:
                message += " To learn without labels which columns belong together, set task to contrastive."
            if self._is_answer:
                message = "No line ends with an answer; add the assistant's messages, or name a label in the schema."
            return Issues([Issue(Code.LABEL_MISSING, message, column=self._column)])
        lines = (line for line in self._rows.lines[missing].tolist() if line not in refused)
        message = f"'{self._column}' is missing; {self._give()}, or remove it."
        if self._is_answer:
            message = "The last message is not the assistant's answer; add it, or remove the line."
        found = Issues(Issue(Code.LABEL_MISSING, message, line, self._column) for line in lines)
        found += self._mislabelled()
        found += self._mismeasured()
        return Issues(found.ordered())

    def unknown(self, known: Sequence[str]) -> Iterator[Issue]:
        """One for every name of a class that is not `known`, row by row."""
        there = ", ".join(excerpt(label) for label in known[:10]) + (", ..." if len(known) > 10 else "")
        classes = set(known)
        strange = {
            place: names
            for place, label in enumerate(self._read)
            if not isinstance(label, Mislabelled)
            and (names := [name for name in names_of(label) if name not in classes])
        }
        for n in np.flatnonzero(np.isin(self._rows.labels, list(strange))):
            for name in strange[int(self._rows.labels[n])]:
                shown = excerpt(name)
                message = (
                    f"No training row is '{shown}'; correct it or train on it too. Trained are: {there}."
                )
                line = int(self._rows.lines[n])
                yield Issue(Code.UNKNOWN_CLASS, message, line, self._column, shown)

    def _mislabelled(self) -> Iterator[Issue]:
        bad = [place for place, label in enumerate(self._read) if isinstance(label, Mislabelled)]
        for n in np.flatnonzero(np.isin(self._rows.labels, bad)):
            place = int(self._rows.labels[n])
            yield self._mismatch(int(n), self._read[place], self._rows.words[place])

    def _mismeasured(self) -> Iterator[Issue]:
        measured = np.flatnonzero(self._rows.labels == MEASURED)
        numbers = self._rows.numbers[measured].tolist()
        for n, number in zip(measured, numbers, strict=True):
            if isinstance(why := _reading(number, self._task), Mislabelled):
                yield self._mismatch(int(n), why, number)

    def _mismatch(self, row: int, why: Label | Mislabelled, label: Label) -> Issue:
        shown = excerpt(SEPARATOR.join(label) if isinstance(label, tuple) else label)
        line = int(self._rows.lines[row])
        return Issue(Code.LABEL_TYPE_MISMATCH, f"'{self._column}' {why}.", line, self._column, shown)

    def _give(self) -> str:
        if self._task is not Task.MULTILABEL:
            return "give the row one"
        return f"give the row some, write {'[]' if self._dataset.typed else SEPARATOR} if it has none"


def _reading(label: Label, task: Task) -> Label | Mislabelled:
    try:
        return read_label(label, task)
    except Mislabelled as why:
        return why

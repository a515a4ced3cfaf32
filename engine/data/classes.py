"""What is wrong with the labels of a classification. Reads no media."""

from collections.abc import Iterator, Sequence

from domain.manifest import Code, Issue, Split, errors_in
from engine.data.manifest import Dataset, Row
from engine.data.tables import excerpt


def class_issues(
    dataset: Dataset, splits: Sequence[Split], trained: Sequence[str] | None
) -> tuple[list[str], list[Issue]]:
    """The classes, sorted, and what is wrong. `trained` are those of another file that is trained on."""
    rows = dataset.rows
    known = sorted(_trained(rows, splits) if trained is None else trained)
    issues = list(_label_issues(dataset))
    if known:
        issues += _unknown(rows, dataset.schema.label, known)
    if len(known) == 1 and trained is None and Split.TRAIN in splits:
        message = f"Every training row is '{excerpt(known[0])}'; add rows of another class."
        issues.append(Issue(Code.SINGLE_CLASS, message, column=dataset.schema.label))
    return known, issues


def _trained(rows: Sequence[Row], splits: Sequence[Split]) -> set[str]:
    training = (row for row, split in zip(rows, splits, strict=True) if split is Split.TRAIN)
    return {row.label for row in training if isinstance(row.label, str)}


def _label_issues(dataset: Dataset) -> Iterator[Issue]:
    name = dataset.schema.label
    refused = {issue.line for issue in errors_in(dataset.issues) if issue.code == Code.LABEL_TYPE_MISMATCH}
    if not refused and all(row.label is None for row in dataset.rows):
        looked_for = f"'{name}'" if name else "'label', 'target' or 'labels'"
        message = f"No row has {looked_for}; add it, or name another column as the schema's label."
        yield Issue(Code.LABEL_MISSING, message, column=name)
        return
    for row in dataset.rows:
        if row.label is None and row.line not in refused:
            message = f"'{name}' is missing; give the row one, or remove it."
            yield Issue(Code.LABEL_MISSING, message, row.line, name)
        elif isinstance(row.label, float):
            message = f"'{name}' must be a word or a whole number: a class, not a measured value."
            yield Issue(Code.LABEL_TYPE_MISMATCH, message, row.line, name, str(row.label))


def _unknown(rows: Sequence[Row], name: str | None, known: Sequence[str]) -> Iterator[Issue]:
    there = ", ".join(excerpt(label) for label in known[:10]) + (", ..." if len(known) > 10 else "")
    classes = set(known)
    for row in rows:
        if isinstance(row.label, str) and row.label not in classes:
            shown = excerpt(row.label)
            message = f"No training row is '{shown}'; correct it or train on it too. Trained are: {there}."
            yield Issue(Code.UNKNOWN_CLASS, message, row.line, name, shown)

"""What a contrastive training asks of rows: two columns, and rows that have both. Reads no media."""

from collections.abc import Iterable, Iterator

from domain.manifest import Code, Issue
from engine.data.chat_paths import column_at
from engine.data.ledger import Ledger
from engine.data.manifest import Dataset

#: Below that share of rows with a pair most of the data teaches nothing.
FEW = 0.5


def without_labels(issues: Iterable[Issue], dataset: Dataset) -> Iterator[Issue]:
    """Less what is wrong with labels, which nobody reads."""
    label = dataset.schema.label
    return (issue for issue in issues if label is None or column_at(issue.column) != label)


def lone_columns(rows: Ledger, role: str) -> Iterator[Issue]:
    """An error where nothing belongs together, a warning where most rows have no pair."""
    if len(rows.used) < 2:
        there = f"only '{rows.used[0]}'" if rows.used else "none"
        message = (
            f"A contrastive training brings two or more columns together, and there is {there} to be learned from; "
            "add a column, or train on labels."
        )
        yield Issue(Code.MISSING_COLUMN, message, param="multimodal.towers")
        return
    training = rows.where(rows.training) if role == "training" else rows
    pairs = int(((~training.missing).sum(axis=1) >= 2).sum())
    if len(training) and not pairs:
        message = "No row has two of the columns that belong together; there is nothing to learn. Fill some."
        yield Issue(Code.TOO_FEW_EXAMPLES, message)
    elif pairs < FEW * len(training):
        message = f"{pairs} of {len(training)} rows have two columns or more; the others take no part."
        yield Issue(Code.HIGH_MISSING_RATE, message, severity="warning")

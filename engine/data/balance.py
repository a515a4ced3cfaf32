"""What is lopsided in a data set: classes with few rows, columns with few cells. Reads no media."""

from collections import Counter
from collections.abc import Iterator

from domain.manifest import Code, Issue
from domain.tasks import Task
from engine.data.classes import Mislabelled, names_of, read_label
from engine.data.ledger import Ledger, Tally
from engine.data.tables import excerpt

#: A class this many times rarer than the most frequent one is hardly learned without weights.
IMBALANCE = 20
#: Of so many classes, more than half with one row each are hardly classes.
MANY_CLASSES = 10
#: A column that lacks more than this share of its cells mostly teaches its token for missing ones.
MISSING_SHARE = 0.5
#: Classes that a message names.
_NAMED = 5


def class_imbalance(training: Tally, task: Task, column: str | None) -> Iterator[Issue]:
    """Of the training rows' classes; a regression has none."""
    # Equal counts by name: what is told must not depend on which row was read first.
    counts = sorted(_classes(training, task).items(), key=lambda pair: (-pair[1], pair[0]))
    if not counts:
        return
    usual, most = counts[0]
    rare = sorted(((n, c) for n, c in counts if c * IMBALANCE < most), key=lambda pair: (pair[1], pair[0]))
    if rare:
        named = ", ".join(f"'{excerpt(name)}' ({count})" for name, count in rare[:_NAMED])
        more = f" and {len(rare) - _NAMED} more" if len(rare) > _NAMED else ""
        message = (
            f"Of '{excerpt(usual)}' there are {most} training rows, but few of {named}{more}; "
            "add rows of those, or set loss.class_weights to balanced; judge by f1_macro, not by accuracy."
        )
        yield Issue(
            Code.CLASS_IMBALANCE, message, column=column, value=excerpt(rare[0][0]), severity="warning"
        )


def lone_classes(training: Tally, task: Task, column: str | None) -> Iterator[Issue]:
    """Most classes have one row: so it is where whole numbers are amounts, or ids."""
    if task is not Task.CLASSIFICATION:
        return
    counts = _classes(training, task)
    lone = sorted(name for name, count in counts.items() if count == 1)
    if len(counts) >= MANY_CLASSES and 2 * len(lone) > len(counts):
        message = (
            f"{len(lone)} of {len(counts)} classes have one training row each; add rows, or set task to regression "
            "if the labels are amounts, or name another column as the schema's label."
        )
        shown = excerpt(lone[0])
        yield Issue(Code.TOO_FEW_EXAMPLES, message, column=column, value=shown, severity="warning")


def missing_rates(rows: Ledger) -> Iterator[Issue]:
    for name, missing in zip(rows.used, rows.missing.sum(axis=0).tolist(), strict=True):
        if missing > MISSING_SHARE * len(rows):
            message = (
                f"'{name}' is missing in {missing} of {len(rows)} rows ({missing / len(rows):.0%}); "
                "fill it, or train without that column."
            )
            yield Issue(Code.HIGH_MISSING_RATE, message, column=name, severity="warning")


def _classes(training: Tally, task: Task) -> Counter[str]:
    """How many rows name each class."""
    counts = Counter[str]()
    for label, count in training.counts.items():
        try:
            counts.update(dict.fromkeys(names_of(read_label(label, task)), count))
        except Mislabelled:
            continue
    return counts

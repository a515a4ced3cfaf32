"""Leaves bad rows out of a data set, or takes bad cells as missing: first as the check decides, then as it decided."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from domain.bad_rows import BadRows
from domain.manifest import Code, ColumnType, Issue
from domain.specs import OnBadRow
from engine.data.chat_paths import column_at
from engine.data.issues import Issues
from engine.data.manifest import Dataset
from engine.data.silence import silenced

#: What only a training file needs of its schema: the others count whole.
_FOR_TRAINING = ("schema.split", "schema.group")


def relevant(dataset: Dataset, used: Collection[str], role: str) -> Iterator[Issue]:
    """What was found while reading the table, without what this job does not touch."""
    for issue in dataset.issues:
        column = column_at(issue.column)
        idle_column = column in dataset.schema.columns and column not in used
        idle_role = issue.code == Code.UNKNOWN_SPLIT or issue.param in _FOR_TRAINING
        if not idle_column and not (idle_role and role != "training"):
            yield issue


def used_columns(towers: Collection[str], types: Mapping[str, ColumnType]) -> dict[str, ColumnType]:
    """The columns that the towers read, as far as the data have them."""
    return {name: types[name] for name in sorted(towers) if name in types}


def is_of_row(issue: Issue) -> bool:
    """Whether it is an error of one row: it names a line."""
    return issue.severity == "error" and issue.line is not None


def widened(
    bad: BadRows, errors: Iterable[Issue], dataset: Dataset, used: Collection[str], policy: OnBadRow
) -> BadRows:
    """`bad`, and the rows (under `mask`: the cells) that `errors` are about."""
    skipped, masked = set(bad.skipped), defaultdict(set, {k: set(lines) for k, lines in bad.masked.items()})
    for issue in errors:
        if issue.line is None:
            continue
        if policy == "mask" and column_at(issue.column) in used:
            masked[str(column_at(issue.column))].add(issue.line)
        else:
            skipped.add(issue.line)
    hidden = set().union(*masked.values())
    left = {
        row.line: {name for name, value in silenced(dataset, row, used).values.items() if value is not None}
        for row in dataset.rows
        if row.line in hidden
    }
    for line in hidden:
        # A line that was never read as a row, or a row that has nothing else.
        if not left.get(line, set()).intersection(used) - {
            name for name, lines in masked.items() if line in lines
        }:
            skipped.add(line)
    return BadRows(frozenset(skipped), {name: frozenset(lines - skipped) for name, lines in masked.items()})


def sieved(dataset: Dataset, bad: BadRows) -> Dataset:
    """The same open data set without what is bad; the other rows keep their lines and ids."""
    if not bad:
        return dataset
    issues = Issues(i for i in dataset.issues if not bad.excuses(i.line, column_at(i.column)))
    return dataclasses.replace(dataset, rows=dataset.rows.without(bad), issues=issues)

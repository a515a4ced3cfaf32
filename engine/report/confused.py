"""Which classes are taken for which, where a whole table of them would be too large to read."""

from collections.abc import Sequence
from typing import Any

#: Classes of a table that a person can read.
READABLE = 30
#: Pairs that are told instead.
PAIRS = 20


def confused_pairs(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The most frequent confusions, `true` taken for `predicted`, most rows first."""
    found = [
        (count, true, said)
        for true, row in enumerate(matrix)
        for said, count in enumerate(row)
        if count and true != said
    ]
    # Equal counts in the classes' order, so that equal runs have equal reports.
    found.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return [
        {
            "true": names[true],
            "predicted": names[said],
            "rows": count,
            "share_of_true": count / sum(matrix[true]),
        }
        for count, true, said in found[:PAIRS]
    ]

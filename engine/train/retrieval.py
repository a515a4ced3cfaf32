"""How well one column finds another: ranks of the right contents among all, in pieces of bounded memory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import permutations
from statistics import median

import torch
from torch import Tensor

from engine.report.headline import MOST_LETTERS, shortened
from engine.train.contents import MISSING
from engine.train.contrastive import Contrast

#: Similarities in memory at a time: 64 MB.
_AT_ONCE = 1 << 24
#: Of more columns the ways from each to each are too many to be told one by one; their mean is told.
MOST_TOLD = 5
_DEPTHS = (1, 5, 10)
#: Letters of `i2t` in `valid_i2t_median_rank`.
_LONGEST_WAY = MOST_LETTERS - len("valid__median_rank")


def retrieval_scores(outputs: Tensor, keys: Tensor, names: Sequence[str], loss: Contrast) -> dict[str, float]:
    """`loss`, the means over all pairs of columns both ways, and (`i2t_recall@10`) each way by the columns' `names`.

    outputs [rows, columns, dim] of length 1, keys [rows, columns], 0 where nothing is.
    """
    ways = dict(_ways(outputs, keys))
    found = {"loss": loss.over(outputs, keys).item()}
    if not ways:
        return found
    each = list(ways.values())
    found |= {name: sum(numbers[name] for numbers in each) / len(each) for name in each[0]}
    if len(names) <= MOST_TOLD:
        called = way_names(names)
        for way, numbers in ways.items():
            found |= {f"{called[way]}_{name}": value for name, value in numbers.items()}
    return found


def way_names(names: Sequence[str]) -> dict[tuple[int, int], str]:
    """`i2t` from column 0 to column 1, and all others: each another one, as a database can keep its metrics."""
    plain = {(i, j): f"{names[i]}2{names[j]}" for i, j in permutations(range(len(names)), 2)}
    often = Counter(plain.values())
    return {
        (i, j): shortened(name, _LONGEST_WAY)
        if often[name] == 1
        else shortened(f"{names[i]}→{names[j]}", _LONGEST_WAY, is_marked=True)
        for (i, j), name in plain.items()
    }


def _ways(outputs: Tensor, keys: Tensor) -> Iterator[tuple[tuple[int, int], dict[str, float]]]:
    for i, j in permutations(range(keys.shape[1]), 2):
        both = ((keys[:, i] != MISSING) & (keys[:, j] != MISSING)).nonzero().flatten()
        if len(both):
            places = ranks(outputs[both, i], outputs[both, j], keys[both, i], keys[both, j])
            yield (i, j), told(places)


def ranks(queries: Tensor, found: Tensor, query_keys: Tensor, found_keys: Tensor) -> Tensor:
    """Of each different query the place, from 1, of the first right answer among all different ones. [queries]

    Row i of `queries` belongs to row i of `found`. Equal contents (keys) are one query, or one answer; right is each
    answer that any row of the query has. A wrong answer that is exactly as near as the right one stands before it: a
    network that says the same of everything finds nothing.
    """
    query_keys, query_of = query_keys.unique(return_inverse=True)
    found_keys, found_of = found_keys.unique(return_inverse=True)
    queries, found = queries[_first(query_of)], found[_first(found_of)]
    pieces = []
    size = max(1, _AT_ONCE // max(1, len(found)))
    for start in range(0, len(queries), size):
        near = queries[start : start + size] @ found.T
        right = torch.zeros(near.shape, dtype=torch.bool)
        of_piece = (query_of >= start) & (query_of < start + size)
        right[query_of[of_piece] - start, found_of[of_piece]] = True
        best = near.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        pieces.append(1 + ((near >= best) & ~right).sum(1))
    return torch.cat(pieces)


def _first(of: Tensor) -> Tensor:
    """A row of each number in `of`: the first one."""
    rows = torch.full((int(of.max()) + 1,), len(of))
    return rows.scatter_reduce(0, of, torch.arange(len(of)), "amin")


def told(places: Tensor) -> dict[str, float]:
    """The metrics of some ranks."""
    numbers = {"mrr": (1.0 / places.double()).mean().item()}
    numbers |= {f"recall@{depth}": (places <= depth).double().mean().item() for depth in _DEPTHS}
    return numbers | {"median_rank": float(median(places.tolist()))}

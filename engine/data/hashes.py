"""Equal contents among millions of rows, by eight bytes of each.

Of ten million different contents two have equal hashes once in 300,000 tables; what is said of them is a warning.
"""

from array import array
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def hash64(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest())


def as_numbers(hashes: "array[int]") -> NDArray[np.uint64]:
    """The same memory, for numpy to read."""
    return np.frombuffer(hashes, np.uint64)


def repeats(hashes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Each place whose hash came before, in order, and the place of the first with it."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    # The run's first place, at each place of the run.
    firsts = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    later, first = order[~begins], firsts[~begins]
    by_place = np.argsort(later)
    yield from zip(later[by_place].tolist(), first[by_place].tolist(), strict=True)

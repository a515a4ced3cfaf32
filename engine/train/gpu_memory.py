"""What a training holds in a GPU's memory, and what is done when it is too much. Knows no spec."""

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from domain.errors import EngineError

R = TypeVar("R")

#: What a user can do about it.
TOO_LITTLE = (
    "freeze more of the encoders or give them lora, set hyperparameters.gradient_checkpointing, shorten the inputs "
    "(max_length, max_seconds, num_frames, image_size), or take smaller encoders or a larger GPU"
)


def halved(rows: int) -> int:
    """The size of a micro-batch where one of `rows` did not fit. Raises EngineError: there is no half of a row."""
    if rows <= 1:
        raise EngineError("out_of_memory", f"a single row does not fit in the GPU's memory; {TOO_LITTLE}")
    return rows // 2


def release() -> None:
    """Gives back what nobody refers to any more: small blocks in the cache's large ones are in the way of others."""
    gc.collect()
    torch.cuda.empty_cache()


class Pieces:
    """Rows some at a time, without a backward pass. What does not fit is done again in halves, and so is what follows."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once

    def each(self, do: Callable[[Tensor], R], rows: Tensor) -> Iterator[R]:
        """`do` of each piece of `rows`, in order. Raises EngineError where a single row does not fit."""
        return self.made(lambda left: map(do, left.split(self.at_once)), rows)

    def made(self, make: Callable[[Tensor], Iterable[R]], rows: Tensor) -> Iterator[R]:
        """`make` gives one result for each piece of `at_once` of the rows that are left, in their order."""
        while len(rows):
            fits = True
            try:
                for result in make(rows):
                    yield result
                    rows = rows[self.at_once :]
            except torch.OutOfMemoryError:
                fits = False
            # Not sooner: the error holds the frames, and they hold the tensors.
            if not fits:
                release()
                self.at_once = halved(min(self.at_once, len(rows)))

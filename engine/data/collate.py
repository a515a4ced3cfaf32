"""Which rows go together, and having the next ones ready. Knows neither files nor networks."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

#: Micro-batches decoded at once, and kept ready; more would only fill memory.
AHEAD = 2

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Batch:
    """A micro-batch. `present` is [rows, towers], bool."""

    inputs: Mapping[str, Any]
    present: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> "Batch":
        inputs = {name: given.to(device) for name, given in self.inputs.items()}
        return Batch(inputs, self.present.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Slice:
    """The rows of a micro-batch, their share of the step's loss, and whether it ends the step."""

    rows: Tensor
    share: float
    ends_step: bool


def shuffled(rows: int, seed: int, epoch: int) -> Tensor:
    """The epoch's order: of seed and epoch only, whatever ran before."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(rows, generator=generator)


def slices(order: Tensor, size: int, accumulation: int, start_step: int = 0) -> Iterator[Slice]:
    """`order` cut into micro-batches of `size`, `accumulation` of them a step; the last step may be short."""
    for step in order.split(size * accumulation)[start_step:]:
        parts = step.split(size)
        for place, rows in enumerate(parts, start=1):
            yield Slice(rows, len(rows) / len(step), place == len(parts))


def ahead(make: Callable[[T], R], items: Iterable[T], workers: int = AHEAD) -> Generator[R, None, None]:
    """`make` of each item in order, the next ones being made in threads meanwhile."""
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

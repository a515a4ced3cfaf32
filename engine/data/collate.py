"""Which rows go together, and having the next ones ready. Knows neither files nor networks."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

#: Micro-batches made at once where the network needs the cores, too, and at most where it has a GPU.
AHEAD, MOST_AHEAD = 2, 8

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


def slices(
    order: Tensor, size: int, accumulation: int, start_step: int = 0, at_once: int | None = None
) -> Iterator[Slice]:
    """`order` cut into micro-batches of `size`, `accumulation` of them a step; the last step may be short.

    `at_once` makes smaller micro-batches of the same steps.
    """
    for step in order.split(size * accumulation)[start_step:]:
        parts = step.split(at_once or size)
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


class Epochs(Generic[T, R]):
    """One epoch after another, as `ahead` makes them, with the next one's first items made while this one ends.

    `pieces(epoch, step)` are an epoch's items from that step on, `make` is what is made of one. Numbers that are asked
    for besides, such as a size, are handed on to `pieces`, and other ones begin anew. Close it.
    """

    def __init__(
        self,
        make: Callable[[T], R],
        pieces: Callable[..., Iterable[T]],
        n_epochs: int,
        workers: int = AHEAD,
    ) -> None:
        self._make, self._pieces, self._n_epochs, self._workers = make, pieces, n_epochs, workers
        self._running: Generator[tuple[R, bool], None, None] | None = None
        #: Where whoever asks next must ask for to go on; anything else begins anew.
        self._next: tuple[int, ...] | None = None

    def __call__(self, epoch: int, step: int, *besides: int) -> Iterator[R]:
        """The items of one epoch, from that step on."""
        if self._running is None or self._next != (epoch, step, *besides):
            self.close()
            self._running = ahead(self._made, self._from(epoch, step, *besides), self._workers)
        self._next = None
        for item, is_last in self._running:
            if is_last:
                self._next = (epoch + 1, 0, *besides)
            yield item
            if is_last:
                return

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
        self._running = None

    def _made(self, piece: tuple[T, bool]) -> tuple[R, bool]:
        return self._make(piece[0]), piece[1]

    def _from(self, epoch: int, step: int, *besides: int) -> Iterator[tuple[T, bool]]:
        for number in range(epoch, self._n_epochs):
            yield from _with_last(self._pieces(number, step if number == epoch else 0, *besides))


def _with_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Each item, and whether it is the last."""
    held: list[T] = []
    for item in items:
        if held:
            yield held.pop(), False
        held.append(item)
    if held:
        yield held.pop(), True

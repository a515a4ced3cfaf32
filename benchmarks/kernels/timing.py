"""How long something takes on the GPU and on the host, and what memory it needs besides its inputs."""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.problem import Problem, Provider

#: Together the input sets of a problem are at least so large: more than the L2 cache of an H200 (60 MB), twice over.
ROTATED_BYTES = 160 << 20
MOST_SETS = 48

Call = Callable[[], Any]


def calls(problem: Problem, provider: Provider, mode: str, *, sets: int = MOST_SETS) -> Call:
    """A function that runs the provider once, each time on the next of several sets of inputs."""
    turn = cycle(input_sets(problem, sets))
    return (lambda: _forward(provider, next(turn))) if mode == "fwd" else _full(provider, turn)


def input_sets(problem: Problem, most: int) -> list[Sequence[Any]]:
    first = problem.make()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors(first))
    return [first, *(problem.make() for _ in range(min(most - 1, ROTATED_BYTES // max(size, 1))))]


def tensors(inputs: Sequence[Any]) -> list[Tensor]:
    """All tensors among the inputs, those in lists, too."""
    flat: list[Tensor] = []
    for one in inputs:
        if isinstance(one, Tensor):
            flat.append(one)
        elif isinstance(one, list | tuple):
            flat += tensors(one)
    return flat


def _forward(provider: Provider, inputs: Sequence[Any]) -> Tensor:
    with torch.no_grad():
        return provider(*inputs)


def _full(provider: Provider, sets: Any) -> Call:
    upstream: dict[torch.Size, Tensor] = {}

    def run() -> Any:
        inputs = next(sets)
        y = provider(*inputs)
        if y.shape not in upstream:
            upstream[y.shape] = torch.randn_like(y) if y.ndim else torch.ones_like(y)
        leaves = [one for one in tensors(inputs) if one.requires_grad]
        return torch.autograd.grad(y, leaves, upstream[y.shape])

    return run


def device_us(call: Call) -> float:
    """The median on the GPU, launch gaps left out where a CUDA graph can be made of it."""
    from triton.testing import do_bench_cudagraph

    call()
    with torch.cuda.stream(torch.cuda.Stream()):
        return 1000 * float(do_bench_cudagraph(call, rep=10, return_mode="median"))


def host_us(call: Call) -> float:
    """The median time until the call returns, the GPU idle at its start."""
    took = []
    for _ in range(9):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    torch.cuda.synchronize()
    return 1e6 * statistics.median(took)


def peak_mb(call: Call) -> float:
    """The most memory that the call held besides what was there before it, results included."""
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20

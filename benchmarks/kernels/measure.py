"""The timing of all problems, the most important providers first, until the time is out. Rows as a CSV has them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels import providers, timing
from benchmarks.kernels.problem import Problem

#: Ours may differ from eager by this much of its norm before it gets no number at all; the tests are stricter.
AGREES = 3e-2

Row = dict[str, Any]


def rows(
    ops: Sequence[str], names: Sequence[str], ceilings: Mapping[str, float], deadline: float
) -> Iterator[Row]:
    """One row for each provider of `names`, op, problem and mode; `note` says why one has no number."""
    for name in names:
        for op in ops:
            for problem in providers.module(op).PROBLEMS:
                for mode in problem.modes:
                    yield from _row(problem, name, mode, ceilings, deadline)


def _row(
    problem: Problem, name: str, mode: str, ceilings: Mapping[str, float], deadline: float
) -> Iterator[Row]:
    row: Row = {"op": problem.op, "problem": problem.label, "mode": mode, "provider": name}
    row["floor_us"] = round(floor_us(problem, mode, ceilings), 1)
    row["estimate_us"] = problem.estimate.get(name, "") if mode == problem.estimate_mode else ""
    provider = providers.provider(problem, name)
    if provider is None:
        if name in problem.too_large_for:
            yield {**row, "note": "does not fit in memory"}
        return
    if time.monotonic() > deadline:
        yield {**row, "note": "no time left"}
        return
    torch.compiler.reset()
    try:
        yield {**row, **_numbers(problem, provider, name, mode)}
    except torch.OutOfMemoryError:
        yield {**row, "note": "out of memory"}
    finally:
        torch.cuda.empty_cache()


def _numbers(problem: Problem, provider: providers.Provider, name: str, mode: str) -> Row:
    if name == "ours" and not _agrees(problem):
        return {"note": "differs from eager"}
    call = timing.calls(problem, provider, mode)
    peak, host = timing.peak_mb(call), timing.host_us(call)
    return {"us": round(timing.device_us(call), 2), "host_us": round(host, 1), "peak_mb": round(peak, 1)}


def _agrees(problem: Problem) -> bool:
    """With eager on the same numbers in float32: in half precision eager itself may be far off."""
    if "eager" in problem.too_large_for:
        return True
    inputs = problem.make()
    with torch.no_grad():
        ours, eager = problem.ours(*inputs).double(), problem.eager(*_in_float32(inputs)).double()
    return bool((ours - eager).norm() <= AGREES * eager.norm())


def _in_float32(inputs: Sequence[Any]) -> list[Any]:
    def wide(one: Any) -> Any:
        if isinstance(one, list | tuple):
            return _in_float32(one)
        return one.float() if isinstance(one, Tensor) and one.is_floating_point() else one

    return [wide(one) for one in inputs]


def floor_us(problem: Problem, mode: str, ceilings: Mapping[str, float]) -> float:
    """The time below which no code runs: the bytes over the bandwidth or the operations over the rate."""
    moving = problem.bytes.get(mode, 0.0) / ceilings["copy_tb_s"] / 1e6
    counting = problem.flops.get(mode, 0.0) / ceilings["gemm_8192x8192x8192_tflop_s"] / 1e6
    return max(moving, counting)

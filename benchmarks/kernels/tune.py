"""Times the candidates of each kernel on this GPU and writes the best: `python -m benchmarks.kernels.tune`.

Writes `kernels/configs/<device>.json`. Each kernel of a problem is tuned in turn by the time of the whole op, the
kernels before it at their best, and a candidate takes the place of the default only if it is faster by 2 %.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.kernels import providers, timing
from benchmarks.kernels.problem import Problem
from kernels import tuned

WORTH = 0.98

Config = dict[str, int]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    asked.add_argument("--ops", default=",".join(providers.OPS))
    asked.add_argument("--seconds", type=float, default=300)
    asked.add_argument("--processes", type=int, default=12, help="that compile the candidates beforehand")
    asked.add_argument("--out", type=Path, default=tuned.FOLDER)
    asked.add_argument(
        "--compile", metavar="I/N", help="compile every N-th candidate from the I-th on, time none"
    )
    options = asked.parse_args()
    ops = options.ops.split(",")
    if options.compile:
        index, count = map(int, options.compile.split("/"))
        compile_some(ops, index, count)
    else:
        write(ops, options)


def write(ops: list[str], options: argparse.Namespace) -> None:
    deadline = time.monotonic() + options.seconds
    compile_all(ops, options.processes)
    path = options.out / f"{tuned.device()}.json"
    table: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for op in ops:
        for problem in providers.module(op).TUNED_ON:
            for kernel, bucket, config in tune(op, problem, deadline):
                table.setdefault(kernel, {})[bucket] = config
                path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    print(f"wrote {path}", flush=True)


def compile_all(ops: list[str], processes: int) -> None:
    """Every candidate once, in processes beside each other: into Triton's cache on disk."""
    command = [sys.executable, "-m", "benchmarks.kernels.tune", "--ops", ",".join(ops), "--compile"]
    running = [
        subprocess.Popen([*command, f"{i}/{processes}"], env=dict(os.environ)) for i in range(processes)
    ]
    for process in running:
        process.wait()


def compile_some(ops: list[str], index: int, count: int) -> None:
    for number, (problem, kernel, config) in enumerate(candidates(ops)):
        if number % count == index:
            with tuned.forced(kernel, config):
                took(problem, compile_only=True)


def candidates(ops: list[str]) -> Iterator[tuple[Problem, str, Config]]:
    for op in ops:
        described = providers.module(op)
        for problem in described.TUNED_ON:
            for kernel, configs in described.TUNABLE.items():
                for config in configs:
                    yield problem, kernel, config


def tune(op: str, problem: Problem, deadline: float) -> Iterator[tuple[str, str, Config]]:
    """The best configuration of each kernel that this problem launches, and the bucket it is for."""
    with ExitStack() as kept:
        for kernel, configs in providers.module(op).TUNABLE.items():
            if time.monotonic() > deadline:
                return
            with tuned.forced(kernel, {}) as buckets:
                default = took(problem)
            if not buckets:
                continue
            best, config = min(
                ((_with(kernel, one, problem), one) for one in configs), key=lambda pair: pair[0]
            )
            told = f"default {default:.1f} us, best {best:.1f} us {config}"
            print(f"{kernel} | {problem.label} | {told}", flush=True)
            if best < WORTH * default:
                kept.enter_context(tuned.forced(kernel, config))
                for bucket in sorted(buckets):
                    yield kernel, bucket, config


def _with(kernel: str, config: Config, problem: Problem) -> float:
    with tuned.forced(kernel, config):
        return took(problem)


def took(problem: Problem, *, compile_only: bool = False) -> float:
    """Microseconds of the whole op; infinity for a configuration that the card refuses."""
    from triton.runtime.errors import OutOfResources

    try:
        call = timing.calls(
            problem, problem.ours, problem.modes[-1], sets=1 if compile_only else timing.MOST_SETS
        )
        if compile_only:
            call()
            return 0.0
        return timing.device_us(call)
    except (OutOfResources, torch.OutOfMemoryError) as refused:
        print(f"refused: {str(refused)[:120]}", flush=True)
        return float("inf")


if __name__ == "__main__":
    main()

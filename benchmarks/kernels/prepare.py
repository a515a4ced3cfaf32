"""Before anything is timed: each op's GPU tests, and all compiling, op by op in processes beside each other.

`python -m benchmarks.kernels.prepare OP` compiles one op's problems into the caches on disk that the timing reads.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODES_OF_COMPILED = ("ours", "compile", "smart+compile")


def prepare(ops: Iterable[str], *, tests: bool, compiles: bool) -> dict[str, str]:
    """Runs both for all ops at once; of each op whose tests are red, the end of what they printed."""
    testing = {
        op: _started(
            ["pytest", "--noconftest", "-W", "default", "-rs", "-n", "3", "--dist", "worksteal", *_files(op)]
        )
        for op in ops
        if tests
    }
    compiling = {op: _started(["benchmarks.kernels.prepare", op]) for op in ops if compiles}
    ended = {op: process.communicate()[0] for op, process in testing.items()}
    for op, process in compiling.items():
        told = process.communicate()[0]
        print(f"{op}: {told.strip()[-1500:] if process.returncode else 'compiled'}", flush=True)
    for op, told in ended.items():
        print(f"{op}: {told.strip().splitlines()[-1] if told.strip() else 'no word'}", flush=True)
    return {op: told[-6000:] for op, told in ended.items() if testing[op].returncode}


def _files(op: str) -> Sequence[str]:
    return sorted(str(path) for path in (ROOT / "tests" / "gpu").glob(f"test_*{op}*.py"))


def _started(module: Sequence[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _compile(op: str) -> None:
    import torch

    from benchmarks.kernels import providers, timing

    for problem in providers.module(op).PROBLEMS:
        for name in MODES_OF_COMPILED:
            provider = providers.provider(problem, name)
            for mode in problem.modes if provider else ():
                # The limit of recompilations counts all problems that share a function.
                torch.compiler.reset()
                timing.calls(problem, provider, mode, sets=1)()


if __name__ == "__main__":
    _compile(sys.argv[1])

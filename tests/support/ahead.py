"""Compiles Triton kernels for a GPU that is not here, by the very launches that an op makes.

The op's functions run on tensors of the CPU under a driver that names the wanted architecture and launches nothing.
Run as a program of its own: the interpreter that the other tests use cannot be switched off in a process.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

#: What one program may take of shared memory, in bytes (CUDA C++ Programming Guide, compute capabilities).
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}


@dataclass(frozen=True)
class Compiled:
    """One kernel as it came out of the compiler."""

    case: str
    kernel: str
    registers: int
    #: Bytes a thread that were moved out to memory for want of registers.
    spilled: int
    #: Bytes a program.
    shared: int
    uses_tensor_cores: bool


def compiled(cases: str, arch: int) -> list[Compiled]:
    """All kernels that `cases` launches, compiled for `sm_<arch>`.

    It names a function, `package.module:function`, which takes a device and yields `(label, run)`: each `run()` makes
    the launches of one case by calling an op's Triton functions.
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(root / "tests"), str(root)])
    done = subprocess.run(
        [sys.executable, "-m", "support.ahead", cases, str(arch)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [Compiled(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]


def troubles(found: list[Compiled], arch: int) -> list[str]:
    """What is wrong with them, in words: spills, or more shared memory than there is."""
    spills = [f"{one.case}: {one.kernel} spills {one.spilled} bytes a thread" for one in found if one.spilled]
    limit = SHARED_LIMIT[arch]
    large = [
        f"{one.case}: {one.kernel} wants {one.shared} of {limit} bytes of shared memory"
        for one in found
        if one.shared > limit
    ]
    return spills + large


class _Elsewhere:
    """A driver whose only device is of the wanted architecture, and which runs nothing."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0


def _main(cases: str, arch: int) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    driver.set_active(_Elsewhere(GPUTarget("cuda", arch, 32)))
    launches: dict[str, tuple[str, Any]] = {}
    compile_only = JITFunction.run
    case = ""

    def run(self: Any, *arguments: Any, grid: Any, warmup: bool = False, **options: Any) -> Any:
        kernel = compile_only(self, *arguments, grid=grid, warmup=True, **options)
        launches.setdefault(kernel.hash, (case, kernel))
        return kernel

    JITFunction.run = run
    module, function = cases.split(":")
    for case, launch in getattr(import_module(module), function)("cpu"):  # noqa: B007
        launch()
    for label, kernel in launches.values():
        sys.stdout.write(json.dumps(asdict(_described(label, kernel))) + "\n")


def _described(case: str, kernel: Any) -> Compiled:
    usage = _usage(kernel.asm["cubin"])
    return Compiled(
        case=case,
        kernel=kernel.metadata.name,
        registers=usage["REG"],
        spilled=usage["STACK"] + usage["LOCAL"],
        shared=kernel.metadata.shared,
        uses_tensor_cores=bool(re.search(r"wgmma\.mma_async|mma\.sync", kernel.asm["ptx"])),
    )


def _usage(cubin: bytes) -> dict[str, int]:
    """What `cuobjdump -res-usage` tells of the only kernel inside."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    return {
        name: int(n) for name, n in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", told.stdout + told.stderr)
    }


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))

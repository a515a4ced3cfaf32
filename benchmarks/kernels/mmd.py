"""The problems of the maximum mean discrepancy: what the benchmark times, and what the tuner may try."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.kernels.problem import Problem
from kernels import mmd_rbf

NUM_KERNELS = 5


def eager(x: Tensor, y: Tensor) -> Tensor:
    """As it is usually written: all distances, one exponential a kernel, a mean for each pair of sides."""
    z = torch.cat([x, y])
    lengths = z.square().sum(1)
    distances = (lengths.unsqueeze(1) + lengths - 2 * z @ z.T).clamp(min=0)
    width = distances.detach().sum() / (len(z) ** 2 - len(z))
    kernels = sum((-distances / (width * 2.0 ** (q - NUM_KERNELS // 2))).exp() for q in range(NUM_KERNELS))
    n = len(x)
    return kernels[:n, :n].mean() + kernels[n:, n:].mean() - 2 * kernels[:n, n:].mean()


def smart(x: Tensor, y: Tensor) -> Tensor:
    """Centred, the bandwidth in closed form, one exponential, squares, and a single sum over all pairs."""
    n, m = len(x), len(y)
    z = torch.cat([x, y])
    z = z - z.detach().mean(0)
    lengths = z.float().square().sum(1)
    width = 2 * lengths.detach().sum() / (n + m - 1)
    distances = (lengths.unsqueeze(1) + lengths - 2 * z @ z.T).clamp(min=0)
    power = (-distances / (width * 2.0 ** (NUM_KERNELS - 1 - NUM_KERNELS // 2))).exp()
    kernels = power
    for _ in range(NUM_KERNELS - 1):
        power = power * power
        kernels = kernels + power
    signs = torch.cat([x.new_full((n,), 1 / n), x.new_full((m,), -1 / m)]).float()
    return ((kernels * signs).sum(1) * signs).sum()


def _make(rows: int, width: int, dtype: torch.dtype) -> Sequence[Tensor]:
    x = torch.randn(rows, width, device="cuda", dtype=dtype)
    y = torch.randn(rows, width, device="cuda", dtype=dtype) + 0.1
    return x.requires_grad_(), y.requires_grad_()


def _problem(
    rows: int,
    width: int,
    dtype: torch.dtype,
    *,
    estimate: dict[str, float] | None = None,
    too_large_for: Sequence[str] = (),
) -> Problem:
    pairs, read = (2 * rows) ** 2, 2 * rows * width * dtype.itemsize
    return Problem(
        op="mmd_rbf",
        label=f"N={rows}+{rows} D={width} {str(dtype).removeprefix('torch.')}",
        make=partial(_make, rows, width, dtype),
        eager=eager,
        ours=mmd_rbf,
        smart=smart,
        bytes={"fwd": read, "full": 3 * read},
        # Half the pairs forward; backward the products of all, and again with the slopes.
        flops={"fwd": pairs * width, "full": 5 * pairs * width},
        estimate=estimate or {},
        too_large_for=too_large_for,
    )


PROBLEMS: list[Problem] = [
    _problem(4096, 256, torch.bfloat16, estimate={"eager": 5244, "compile": 828, "ours": 300}),
    _problem(512, 256, torch.bfloat16),
    _problem(4096, 768, torch.bfloat16),
    _problem(4096, 256, torch.float32),
    _problem(32768, 256, torch.bfloat16, too_large_for=("eager",)),
]

TUNED_ON = [PROBLEMS[0], PROBLEMS[3], PROBLEMS[2]]


def _blocks(rows: int, columns: int, k: int, programs: int, warps: int, stages: int) -> dict[str, int]:
    return {
        "ROWS": rows, "COLUMNS": columns, "K": k, "PROGRAMS": programs,
        "num_warps": warps, "num_stages": stages,
    }  # fmt: skip


def _pull(rows: int, columns: int, programs: int, warps: int, stages: int) -> dict[str, int]:
    return {
        "ROWS": rows, "COLUMNS": columns, "PROGRAMS": programs, "num_warps": warps, "num_stages": stages,
    }  # fmt: skip


#: None spills on sm_90 in the problems above that it can win.
TUNABLE: dict[str, list[dict[str, int]]] = {
    "mmd.triangle": [
        _blocks(128, 64, 256, 132, 8, 2),
        _blocks(64, 64, 256, 264, 4, 2),
        _blocks(128, 128, 64, 132, 8, 3),
        _blocks(128, 128, 32, 132, 8, 2),
        _blocks(128, 64, 32, 132, 8, 3),
        _blocks(64, 64, 16, 396, 4, 4),
    ],
    "mmd.slopes": [
        _blocks(128, 128, 64, 132, 8, 3),
        _blocks(128, 64, 64, 264, 8, 3),
        _blocks(128, 64, 32, 132, 8, 3),
        _blocks(128, 64, 16, 132, 8, 4),
        _blocks(64, 64, 32, 264, 4, 3),
        _blocks(64, 64, 16, 396, 4, 4),
    ],
    "mmd.pull": [
        _pull(128, 64, 132, 8, 2),
        _pull(128, 64, 132, 8, 3),
        _pull(128, 32, 132, 8, 3),
        _pull(64, 32, 264, 4, 3),
    ],
}

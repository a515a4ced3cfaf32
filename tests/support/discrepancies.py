"""Cases of the maximum mean discrepancy, and an independent answer to each."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels import mmd_rbf, tuned


@dataclass(frozen=True)
class Case:
    x: Tensor
    y: Tensor
    bandwidth: float | Tensor | None = None
    num_kernels: int = 5
    unbiased: bool = False
    weight_x: Tensor | None = None
    weight_y: Tensor | None = None

    @property
    def leaves(self) -> dict[str, Tensor]:
        return {"x": self.x, "y": self.y}

    def to(self, dtype: torch.dtype) -> "Case":
        """The same numbers as fresh leaves that require a gradient."""
        fresh = {name: leaf.detach().to(dtype).requires_grad_() for name, leaf in self.leaves.items()}
        return replace(self, **fresh)

    def on(self, device: str) -> "Case":
        """The same on another device, x and y as fresh leaves."""
        moved = {
            name: value.detach().to(device) for name, value in vars(self).items() if torch.is_tensor(value)
        }
        return replace(self, **moved | {name: moved[name].requires_grad_() for name in ("x", "y")})


def case(
    *,
    rows: int = 37,
    others: int = 41,
    width: int = 48,
    apart: float = 0.3,
    weights: str = "absent",
    dtype: torch.dtype = torch.float32,
    bandwidth: float | Tensor | None = None,
    num_kernels: int = 5,
    unbiased: bool = False,
) -> Case:
    """A case with random numbers that `dtype` holds exactly. The means of the samples are `apart`."""
    random = torch.Generator().manual_seed(rows + 1000 * others + width)

    def draw(count: int, shift: float) -> Tensor:
        return (torch.randn(count, width, generator=random) + shift).to(dtype).requires_grad_()

    return Case(
        x=draw(rows, 0.0),
        y=draw(others, apart),
        bandwidth=bandwidth,
        num_kernels=num_kernels,
        unbiased=unbiased,
        weight_x=_weights(weights, rows, random),
        weight_y=_weights(weights, others, random),
    )


def _weights(kind: str, rows: int, random: torch.Generator) -> Tensor | None:
    """By name; `some` and `weighted` leave rows out."""
    present = torch.rand(rows, generator=random) > 0.3
    present[:2] = True
    present[2:3] = False
    return {
        "absent": None,
        "all": torch.full((rows,), 7.0),
        "none": torch.zeros(rows),
        "one": torch.arange(rows) == 0,
        "some": present,
        "weighted": present * torch.rand(rows, generator=random) * 100,
    }[kind]


@contextmanager
def large_blocks() -> Iterator[None]:
    """Blocks that the interpreter is quick with: it takes about the same time for one of any size."""
    pull = {"ROWS": 128, "COLUMNS": 128, "PROGRAMS": 2}
    products = pull | {"K": 256}
    stream = {"BLOCK": 128, "WIDTH": 256}
    with ExitStack() as stack:
        for name, config in (
            ("triangle", products),
            ("pull", pull),
            ("slopes", products),
            ("totals", stream),
            ("prepare", stream),
        ):
            stack.enter_context(tuned.forced(f"mmd.{name}", config))
        stack.enter_context(tuned.forced("mmd.gradients", {"BLOCK": 128, "COLUMNS": 256}))
        yield


def discrepancy(case: Case) -> Tensor:
    return mmd_rbf(
        case.x,
        case.y,
        bandwidth=case.bandwidth,
        num_kernels=case.num_kernels,
        unbiased=case.unbiased,
        weight_x=case.weight_x,
        weight_y=case.weight_y,
    )


def textbook(case: Case) -> Tensor:
    """All pairs of the rows that count, one kernel after the other, in the dtype of the case."""
    x, p = _counted(case.x, case.weight_x)
    y, q = _counted(case.y, case.weight_y)
    if min(len(x), len(y)) < (2 if case.unbiased else 1):
        return (case.x.nan_to_num().sum() + case.y.nan_to_num().sum()) * 0
    z = torch.cat([x, y])
    distances = (z.unsqueeze(1) - z.unsqueeze(0)).square().sum(2)
    middle = case.bandwidth
    if middle is None:
        middle = distances.detach().sum() / (len(z) * (len(z) - 1))
    kernels = sum(
        (-distances / (middle * 2.0 ** (i - case.num_kernels // 2))).exp() for i in range(case.num_kernels)
    )
    n = len(x)
    across = p @ kernels[:n, n:] @ q
    return _mean(kernels[:n, :n], p, case.unbiased) + _mean(kernels[n:, n:], q, case.unbiased) - 2 * across


def _counted(rows: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    weight = rows.new_ones(len(rows)) if weight is None else weight.to(rows.dtype)
    counts = weight != 0
    return rows[counts], weight[counts] / weight.sum()


def _mean(kernels: Tensor, shares: Tensor, unbiased: bool) -> Tensor:
    pairs = torch.outer(shares, shares)
    if unbiased:
        pairs = pairs * (1 - torch.eye(len(shares), dtype=shares.dtype, device=shares.device))
        pairs = pairs / pairs.sum()
    return (kernels * pairs).sum()


def eager(case: Case) -> Tensor:
    """What is usually written: all pairs by matrix products, in the dtype of the case, without weights."""
    z = torch.cat([case.x, case.y])
    distances = torch.cdist(z, z).square() if z.dtype == torch.float64 else _distances(z)
    middle = distances.detach().sum() / (len(z) ** 2 - len(z)) if case.bandwidth is None else case.bandwidth
    kernels = sum(
        (-distances / (middle * 2.0 ** (i - case.num_kernels // 2))).exp() for i in range(case.num_kernels)
    )
    n = len(case.x)
    return kernels[:n, :n].mean() + kernels[n:, n:].mean() - 2 * kernels[:n, n:].mean()


def _distances(z: Tensor) -> Tensor:
    lengths = z.square().sum(1)
    return (lengths.unsqueeze(1) + lengths - 2 * z @ z.T).clamp(min=0)

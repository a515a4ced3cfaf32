"""The maximum mean discrepancy and its gradients in plain torch: the specification, and the path for the CPU.

With z = [x; y] less a common centre, relative weights t (the greatest of a side is 1) and, for each pair of sides, one
factor a, the answer is the sum over i, j of a * t_i * t_j * k(z_i, z_j). Knows no autograd.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.norms import accumulation

#: What `forward` keeps in `scales` for `backward`, in this order. `inverse` is 1 / the widest bandwidth; `within_x`,
#: `within_y` and `across` are the factors a; `unit_x` and `unit_y` are 1 / the greatest weight of a side; `diagonal`
#: is what the pairs i = j add up to; `defined` is 0 where the answer is 0 for want of rows, else 1, or NaN for NaN in
#: a row that counts.
SCALES = ("inverse", "within_x", "within_y", "across", "unit_x", "unit_y", "diagonal", "defined")

#: The reference holds no block of pairs larger than this.
PAIRS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class _Samples:
    """Both sides, one behind the other."""

    #: [N + M, D], less the centre; rows of weight 0 are zeros.
    z: Tensor
    #: [N + M, 1]: relative weights.
    t: Tensor
    #: How many of the rows are x's.
    split: int


def forward(
    x: Tensor,
    y: Tensor,
    weight_x: Tensor | None,
    weight_y: Tensor | None,
    bandwidth: Tensor | None,
    num_kernels: int,
    unbiased: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The answer; what `backward` needs: a centre [D] of all rows, and `SCALES`."""
    precision = accumulation(x.dtype)
    if not x.numel() or not y.numel():
        return x.new_zeros((), dtype=precision), *nothing_kept(x)
    units = _unit(weight_x, x), _unit(weight_y, y)
    t = _relative(weight_x, weight_y, x, y, *units)
    rows = torch.where(t == 0, 0, torch.cat([x, y]).to(precision))
    count = (t != 0).sum()
    centre = rows.sum(0) / count.clamp(min=1)
    both = _Samples(torch.where(t == 0, 0, rows - centre), t, len(x))
    if bandwidth is None:
        bandwidth = 2 * both.z.square().sum() / (count - 1).clamp(min=1)
    scales = _scales(bandwidth.to(precision), both, units, num_kernels, unbiased)

    total = torch.zeros_like(scales[0])
    for block, columns, wide in _blocks(both, scales):
        k = torch.zeros_like(wide)
        for power in _powers(wide, num_kernels):
            k += power
        total += both.t[block].mT.mm(k.mm(columns)).squeeze()
    return torch.where(scales[7] == 0, 0, total + scales[6]), centre, scales


def backward(
    grad: Tensor,
    centre: Tensor,
    scales: Tensor,
    x: Tensor,
    y: Tensor,
    weight_x: Tensor | None,
    weight_y: Tensor | None,
    num_kernels: int,
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients that `needs` asks for, in the order x, y."""
    if not x.numel() or not y.numel():
        return [torch.zeros_like(rows) for rows, needed in zip((x, y), needs, strict=True) if needed]
    t = _relative(weight_x, weight_y, x, y, scales[4], scales[5])
    z = torch.where(t == 0, 0, torch.cat([x, y]).to(centre.dtype) - centre)
    both = _Samples(z, t, len(x))

    dz = torch.zeros_like(z)
    for block, columns, wide in _blocks(both, scales, needs):
        # k' / -inverse: the slope of every kernel is its own bandwidth's share.
        slope = torch.zeros_like(wide)
        for q, power in enumerate(_powers(wide, num_kernels)):
            slope += power * 2**q
        slope *= columns.mT
        dz[block] = slope.sum(1, keepdim=True) * z[block] - slope.mm(z)
    dz = torch.where((t == 0) | (scales[7] == 0), 0, dz * (-4 * grad * scales[0] * scales[7]) * t)
    sides = zip((dz[: both.split], dz[both.split :]), (x, y), needs, strict=True)
    return [side.to(rows.dtype) for side, rows, needed in sides if needed]


def nothing_kept(x: Tensor) -> tuple[Tensor, Tensor]:
    """The centre and `SCALES` of a call without rows."""
    precision = accumulation(x.dtype)
    return x.new_zeros(x.shape[1], dtype=precision), x.new_zeros(len(SCALES), dtype=precision)


def _unit(weight: Tensor | None, rows: Tensor) -> Tensor:
    """1 / the greatest weight; 1 if that is 0."""
    precision = accumulation(rows.dtype)
    if weight is None:
        return torch.ones((), dtype=precision, device=rows.device)
    greatest = weight.to(precision).max()
    return torch.where(greatest == 0, 1, greatest).reciprocal()


def _relative(
    weight_x: Tensor | None, weight_y: Tensor | None, x: Tensor, y: Tensor, unit_x: Tensor, unit_y: Tensor
) -> Tensor:
    sides = ((weight_x, x, unit_x), (weight_y, y, unit_y))
    t = [(unit.new_ones(len(rows)) if w is None else w.to(unit.dtype)) * unit for w, rows, unit in sides]
    return torch.cat(t).unsqueeze(1)


def _scales(
    bandwidth: Tensor, both: _Samples, units: Sequence[Tensor], num_kernels: int, unbiased: bool
) -> Tensor:
    """As `SCALES` says. A bandwidth of 0 comes of rows that are all equal: every kernel is then 1."""
    widest = bandwidth * 2.0 ** (num_kernels - 1 - num_kernels // 2)
    inverse = torch.where(widest == 0, 0, widest.reciprocal())
    sides = both.t[: both.split].double(), both.t[both.split :].double()
    (sum_x, sum_y), (squares_x, squares_y) = [s.sum() for s in sides], [s.square().sum() for s in sides]
    pairs_x, pairs_y = sum_x**2, sum_y**2
    enough = torch.stack([(side != 0).sum() for side in sides]).min() >= (2 if unbiased else 1)
    if unbiased:
        pairs_x, pairs_y = pairs_x - squares_x, pairs_y - squares_y
    factors = [_over(1, pairs_x), _over(1, pairs_y), _over(-1, sum_x * sum_y)]
    diagonal = num_kernels * (squares_x * factors[0] + squares_y * factors[1]) * (not unbiased)
    defined = torch.where(enough, 1 + 0 * both.z.square().sum(), 0)
    found = [inverse, *factors, *units, diagonal, defined]
    return torch.stack([value.to(bandwidth.dtype) for value in found])


def _over(value: float, total: Tensor) -> Tensor:
    return torch.where(total == 0, 0, value / torch.where(total == 0, 1, total))


def _blocks(
    both: _Samples, scales: Tensor, needs: Sequence[bool] = (True, True)
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, what each column counts for beside them [N + M, 1], and their widest kernels with all columns."""
    norms = both.z.square().sum(1)
    at_once = max(PAIRS_AT_ONCE // len(both.z), 1)
    is_x = torch.arange(len(both.z), device=both.z.device).unsqueeze(1) < both.split
    sides = ((0, both.split, scales[1], scales[3]), (both.split, len(both.z), scales[3], scales[2]))
    for (start, stop, beside_x, beside_y), needed in zip(sides, needs, strict=True):
        columns = both.t * torch.where(is_x, beside_x, beside_y)
        for first in range(start, stop, at_once) if needed else ():
            block = slice(first, min(first + at_once, stop))
            distances = (norms[block].unsqueeze(1) + norms - 2 * both.z[block].mm(both.z.mT)).clamp(min=0)
            wide = torch.exp(-scales[0] * distances)
            # Of a row with itself the answer is in `diagonal`. Of its pull on itself only rounding would be left.
            wide.diagonal(block.start).zero_()
            yield block, columns, wide


def _powers(wide: Tensor, num_kernels: int) -> Iterator[Tensor]:
    """Every kernel, the widest first: half the bandwidth is the square of the kernel."""
    for _ in range(num_kernels):
        yield wide
        wide = wide.square()

"""The maximum mean discrepancy by Triton: buffers and launches, with the meaning of the reference.

No buffer of all pairs: a copy of the rows, and, for the backward, a few times the gradient in float32, and where
float32 or wide rows want it a buffer of slopes for some rows at a time.
"""

import math
from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from kernels import tuned
from kernels.contrastive.products import product
from kernels.mmd import device
from kernels.mmd.reference import SCALES, nothing_kept
from kernels.mmd.samples import UNIT, WIDEST, Layout, Samples, layout

MOST_D = 1024
#: About what the backward takes of memory for slopes at a time, where it takes any.
SLOPES_BYTES = 64 << 20


def refuses_forward(x: Tensor, *_: object) -> str | None:
    return _refuses(x)


def refuses_backward(_grad: Tensor, _centre: Tensor, _scales: Tensor, x: Tensor, *_: object) -> str | None:
    return _refuses(x)


def _refuses(x: Tensor) -> str | None:
    return f"its kernel takes rows of up to {MOST_D} numbers" if x.shape[1] > MOST_D else None


def forward(
    x: Tensor,
    y: Tensor,
    weight_x: Tensor | None,
    weight_y: Tensor | None,
    bandwidth: Tensor | None,
    num_kernels: int,
    unbiased: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if not x.numel() or not y.numel():
        return x.new_zeros((), dtype=torch.float32), *nothing_kept(x)
    lie = layout(x, y)
    samples = Samples(x, y, weight_x, weight_y, lie)
    centre, scales, value = (
        x.new_empty(shape, dtype=torch.float32) for shape in ((x.shape[1],), (len(SCALES),), ())
    )
    _, factor, norms, shares = samples.measured(centre, scales, bandwidth, num_kernels, unbiased)
    partials = _triangle(factor, norms, shares, scales, lie, num_kernels)
    device.finish[(1,)](partials, scales, value, partials.numel(), BLOCK=1024, num_warps=4)
    return value, centre, scales


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
    found = [torch.empty_like(rows, memory_format=torch.contiguous_format) for rows in (x, y)]
    wanted = [rows for rows, needed in zip(found, needs, strict=True) if needed]
    if not x.numel() or not y.numel():
        return [rows.zero_() for rows in wanted]
    if not wanted:
        return []
    lie = layout(x, y)
    z, factor, norms, shares = Samples(x, y, weight_x, weight_y, lie).known(centre, scales)
    first_row = 0 if needs[0] else lie.x_padded
    row_count = (lie.padded if needs[1] else lie.x_padded) - first_row
    slope_unit = 2.0 ** (14 - num_kernels)
    rest = norms, shares, scales, lie, first_row, row_count, num_kernels, slope_unit
    pulls, sums = _pulled_by_slopes(z, factor, *rest) if _wants_slopes(z) else _pulled(z, *rest)

    config = tuned.tuned(
        "mmd.gradients",
        {"rows": row_count, "width": lie.width},
        {"BLOCK": 32, "COLUMNS": 64, "num_warps": 4},
    )
    columns = min(config.pop("COLUMNS"), lie.width)
    grid = row_count // config["BLOCK"], lie.width // columns
    device.gradients[grid](
        grad, z, shares, scales, pulls, sums, *found, len(x), len(y), x.shape[1], lie.x_padded,
        first_row, row_count, len(pulls), len(sums), WIDTH=lie.width, SLOPE_UNIT=slope_unit, COLUMNS=columns, **config,
    )  # fmt: skip
    return wanted


def _problem(z: Tensor, rows: int) -> dict[str, int]:
    return {"rows": rows, "width": z.shape[-1], "bits": 8 * z.element_size()}


def _triangle(
    factor: Tensor, norms: Tensor, shares: Tensor, scales: Tensor, lie: Layout, num_kernels: int
) -> Tensor:
    config = tuned.tuned("mmd.triangle", _problem(factor, lie.padded), _triangle_default(factor))
    wanted, rows, k = config.pop("PROGRAMS"), config["ROWS"], min(config.pop("K"), lie.width)
    blocks, is_split = lie.padded // rows, factor.ndim == 3
    folds, steps = triton.cdiv(blocks, 2), (lie.padded + rows) // config["COLUMNS"]
    # Where there is more to do than one run of all programs, small parts leave none of them long alone at the end.
    per_part = triton.cdiv(steps, min(max(wanted // folds, steps // 32, 1), steps))
    partials = norms.new_empty(folds, triton.cdiv(steps, per_part))
    device.triangle[partials.shape](
        factor, norms, shares, scales, partials, lie.x_padded, lie.padded, blocks, per_part,
        WIDTH=lie.width, KERNELS=num_kernels, SPLIT=is_split, HELD=k == lie.width and not is_split, K=k, **config,
    )  # fmt: skip
    return partials


def _wants_slopes(z: Tensor) -> bool:
    """Whether slopes go through memory to torch's own product with the rows.

    float32 and wide rows: their sums do not fit beside the blocks, and the products would be taken anew for each part
    of the width.
    """
    return z.element_size() == 4 or z.shape[1] > WIDEST


def _pulled(
    z: Tensor,
    norms: Tensor,
    shares: Tensor,
    scales: Tensor,
    lie: Layout,
    first_row: int,
    row_count: int,
    num_kernels: int,
    slope_unit: float,
) -> tuple[Tensor, Tensor]:
    """For each part of the columns what it adds to the rows, and the sums of the slopes."""
    config = tuned.tuned("mmd.pull", _problem(z, row_count), PULL_DEFAULT)
    wanted, steps = config.pop("PROGRAMS"), lie.padded // config["COLUMNS"]
    blocks = row_count // config["ROWS"]
    per_part = triton.cdiv(steps, min(_parts(blocks, wanted), steps))
    parts = triton.cdiv(steps, per_part)
    pulls, sums = norms.new_empty(parts, row_count, lie.width), norms.new_empty(parts, row_count)
    device.pull[(blocks, parts)](
        z, norms, shares, scales, pulls, sums, lie.x_padded, lie.padded, first_row, row_count,
        per_part * config["COLUMNS"],
        WIDTH=lie.width, KERNELS=num_kernels, SLOPE_UNIT=slope_unit, **config,
    )  # fmt: skip
    return pulls, sums


def _pulled_by_slopes(
    z: Tensor,
    factor: Tensor,
    norms: Tensor,
    shares: Tensor,
    scales: Tensor,
    lie: Layout,
    first_row: int,
    row_count: int,
    num_kernels: int,
    slope_unit: float,
) -> tuple[Tensor, Tensor]:
    """The same, by slopes of some rows at a time; the parts of either result are its own."""
    at_once = min(max(SLOPES_BYTES // (lie.padded * z.element_size()) // UNIT, 1) * UNIT, row_count)
    config = tuned.tuned("mmd.slopes", _problem(z, row_count), _slopes_default(z))
    wanted, k = config.pop("PROGRAMS"), min(config.pop("K"), lie.width)
    steps = lie.padded // config["COLUMNS"]
    per_part = triton.cdiv(steps, min(max(wanted * config["ROWS"] // at_once, 1), steps))
    sums = norms.new_empty(triton.cdiv(steps, per_part), row_count)
    # float32's product is slow, and of few rows has few blocks: parts of the columns make enough of them.
    parts = math.gcd(lie.padded // UNIT, 4) if z.element_size() == 4 else 1
    pulls, room = norms.new_empty(parts, row_count, lie.width), z.new_empty(at_once, lie.padded)
    for start in range(0, row_count, at_once):
        slopes = room[: row_count - start]
        device.slopes[(len(slopes) // config["ROWS"], len(sums))](
            factor, norms, shares, scales, slopes, sums, lie.x_padded, lie.padded, first_row, start, row_count,
            per_part * config["COLUMNS"],
            WIDTH=lie.width, KERNELS=num_kernels, SLOPE_UNIT=slope_unit, SPLIT=factor.ndim == 3, K=k, **config,
        )  # fmt: skip
        _multiply(slopes, z, pulls[:, start : start + len(slopes)])
    return pulls, sums


def _multiply(slopes: Tensor, z: Tensor, pulls: Tensor) -> None:
    """What each part of the columns pulls: by `out`, which autocast leaves alone."""
    parts = len(pulls)
    if parts == 1:
        product(slopes, z, out=pulls[0])
    else:
        torch.bmm(slopes.unflatten(1, (parts, -1)).transpose(0, 1), z.unflatten(0, (parts, -1)), out=pulls)


def _parts(programs: int, at_once: int) -> int:
    """Into how many parts to cut each of `programs`, so that the last run of all that run at once is a full one.

    Each part costs a pass over a gradient, and its memory.
    """
    return min(range(1, 9), key=lambda parts: triton.cdiv(programs * parts, at_once) / parts + 0.01 * parts)


def _triangle_default(factor: Tensor) -> dict[str, int]:
    """COLUMNS divides ROWS: a row of blocks starts at its own diagonal."""
    large = {"ROWS": 128, "COLUMNS": 64, "PROGRAMS": 132, "num_warps": 8}
    if factor.element_size() == 4:
        return large | {"K": 16, "num_stages": 4}
    is_held = factor.shape[-1] <= WIDEST
    return large | ({"K": WIDEST, "num_stages": 2} if is_held else {"COLUMNS": 128, "K": 64, "num_stages": 3})


def _slopes_default(z: Tensor) -> dict[str, int]:
    large = {"ROWS": 128, "PROGRAMS": 132, "num_warps": 8}
    if z.element_size() == 4:
        return large | {"COLUMNS": 64, "K": 16, "num_stages": 3}
    return large | {"COLUMNS": 128, "K": 64, "num_stages": 3}


#: Large blocks of rows, for each reads all columns; they and their sums lie in registers, and bound the rest.
PULL_DEFAULT = {"ROWS": 128, "COLUMNS": 64, "PROGRAMS": 132, "num_warps": 8, "num_stages": 2}

"""The rows' gradients: the slopes of all pairs, what they pull each row by, and what that adds up to."""

import triton
import triton.language as tl

from kernels.mmd.device.parts import products, rounded, widest


@triton.jit
def _greatest(scales, within):
    """The greater of the two factors that a row meets: what its slopes are measured by."""
    greatest = tl.maximum(tl.abs(tl.load(scales + within)), tl.abs(tl.load(scales + 3)))
    return tl.where(greatest == 0, 1.0, greatest)


@triton.jit
def _factors(scales, is_x, SLOPE_UNIT: tl.constexpr):
    """What the slopes of a side's rows are multiplied by, beside columns of the same side and of the other."""
    which = tl.where(is_x, 1, 2)
    unit = SLOPE_UNIT / _greatest(scales, which)
    return tl.load(scales + which) * unit, tl.load(scales + 3) * unit


@triton.jit
def _slopes(product, half_i, half_j, inverse, weight, rows, columns, KERNELS: tl.constexpr):
    """The slopes of two blocks, in float32; 0 for a row with itself.

    A row pulls itself nowhere, but would drown what far rows do in the digits it cancels to.
    """
    power = widest(product, half_i, half_j, inverse)
    slope = power
    for q in tl.static_range(1, KERNELS):
        power = power * power
        slope += power * (1 << q)
    return tl.where(rows[:, None] == columns[None, :], 0.0, slope * weight[None, :])


@triton.jit
def _seen(slope, dtype: tl.constexpr, TF32: tl.constexpr):
    """The slopes as a product of `dtype` sees them, still as float32: z_i less z_j is then weighed by one number."""
    if dtype == tl.bfloat16:
        slope = rounded(slope, 0x8000)
    elif dtype == tl.float16:
        slope = slope.to(tl.float16).to(tl.float32)
    elif TF32:
        slope = rounded(slope, 0x1000)
    return slope


@triton.jit
def pull(
    Z, norms, shares, scales, pulls, sums, x_padded, padded, first_row, row_count, per_part,
    WIDTH: tl.constexpr, KERNELS: tl.constexpr, SLOPE_UNIT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of a part of the columns: what the slopes g of a block of rows add up to, and g @ z.

    Slopes are in units that half precision holds: the greater factor is 1, and SLOPE_UNIT leaves as much room as the
    sum of all kernels' slopes needs below 65504.
    """
    at = tl.program_id(0) * ROWS
    part = tl.program_id(1)
    rows = first_row + at + tl.arange(0, ROWS)
    is_x = first_row + at < x_padded
    inverse = tl.load(scales) * 1.4426950408889634
    within, across = _factors(scales, is_x, SLOPE_UNIT)
    half_i = tl.load(norms + rows) * inverse
    d = tl.arange(0, WIDTH)
    zi = tl.load(Z + rows.to(tl.int64)[:, None] * WIDTH + d[None, :])
    pulled = tl.zeros((ROWS, WIDTH), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    start = part * per_part
    for first in range(start, tl.minimum(start + per_part, padded), COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        zj = tl.load(Z + columns.to(tl.int64)[:, None] * WIDTH + d[None, :])
        half_j = tl.load(norms + columns) * inverse
        weight = tl.load(shares + columns) * tl.where((first < x_padded) == is_x, within, across)
        product = tl.dot(zi, tl.trans(zj))
        slope = _slopes(product, half_i, half_j, inverse, weight, rows, columns, KERNELS)
        slope = _seen(slope, Z.dtype.element_ty, False)
        total += tl.sum(slope, 1)
        pulled = tl.dot(slope.to(zj.dtype), zj, pulled)
    row = part.to(tl.int64) * row_count + at + tl.arange(0, ROWS)
    tl.store(pulls + row[:, None] * WIDTH + d[None, :], pulled)
    tl.store(sums + row, total)


@triton.jit
def slopes(
    Z, norms, shares, scales, out, sums, x_padded, padded, first_row, start_row, row_count, per_part,
    WIDTH: tl.constexpr, KERNELS: tl.constexpr, SLOPE_UNIT: tl.constexpr, SPLIT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """The slopes of some rows, from `start_row` of those that are wanted, with all columns: [rows, padded].

    As `pull` has them, where the product with z is taken by another; and what each part of the columns adds up to.
    """
    at = tl.program_id(0) * ROWS
    part = tl.program_id(1)
    rows = first_row + start_row + at + tl.arange(0, ROWS)
    is_x = first_row + start_row + at < x_padded
    inverse = tl.load(scales) * 1.4426950408889634
    within, across = _factors(scales, is_x, SLOPE_UNIT)
    half_i = tl.load(norms + rows) * inverse
    own = at + tl.arange(0, ROWS)
    to = out + own.to(tl.int64)[:, None] * padded
    total = tl.zeros((ROWS,), tl.float32)
    start = part * per_part
    for first in range(start, tl.minimum(start + per_part, padded), COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        half_j = tl.load(norms + columns) * inverse
        weight = tl.load(shares + columns) * tl.where((first < x_padded) == is_x, within, across)
        product = products(Z, first_row + start_row + at, first, padded, WIDTH, K, ROWS, COLUMNS, SPLIT)
        slope = _slopes(product, half_i, half_j, inverse, weight, rows, columns, KERNELS)
        slope = _seen(slope, Z.dtype.element_ty, not SPLIT)
        total += tl.sum(slope, 1)
        tl.store(to + columns[None, :], slope.to(out.dtype.element_ty))
    tl.store(sums + part.to(tl.int64) * row_count + start_row + own, total)


@triton.jit
def gradients(
    grad, Z, shares, scales, pulls, sums, DX, DY, N, M, D, x_padded, first_row, row_count, parts, sum_parts,
    WIDTH: tl.constexpr, SLOPE_UNIT: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradients of some rows, of what the parts left."""
    at = tl.program_id(0) * BLOCK
    own = at + tl.arange(0, BLOCK)
    d = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    pulled = tl.zeros((BLOCK, COLUMNS), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(parts):
        row = part * row_count.to(tl.int64) + own
        pulled += tl.load(pulls + row[:, None] * WIDTH + d[None, :])
    for part in range(sum_parts):
        total += tl.load(sums + part * row_count.to(tl.int64) + own)
    first = first_row + at
    rows = first + tl.arange(0, BLOCK)
    z = tl.load(Z + rows.to(tl.int64)[:, None] * WIDTH + d[None, :]).to(tl.float32)
    share = tl.load(shares + rows)
    greatest = _greatest(scales, tl.where(first < x_padded, 1, 2))
    scale = tl.load(grad).to(tl.float32) * tl.load(scales) * (-4.0 / SLOPE_UNIT) * greatest
    found = (total[:, None] * z - pulled) * (share * scale)[:, None]
    defined = tl.load(scales + 7)
    found *= defined
    counting = tl.where(defined == 0, 0.0, share)
    found = tl.where((counting == 0)[:, None], 0.0, found)
    if first < x_padded:
        mask = (rows < N)[:, None] & (d < D)[None, :]
        tl.store(DX + rows.to(tl.int64)[:, None] * D + d[None, :], found.to(DX.dtype.element_ty), mask=mask)
    else:
        rows -= x_padded
        mask = (rows < M)[:, None] & (d < D)[None, :]
        tl.store(DY + rows.to(tl.int64)[:, None] * D + d[None, :], found.to(DY.dtype.element_ty), mask=mask)

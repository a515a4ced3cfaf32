"""The rows as all pairs take them: less their centre, with their squared lengths and relative weights."""

import triton
import triton.language as tl

from kernels.mmd.device.parts import COUNTS, PARTIALS, rounded


@triton.jit
def _weights(
    WX,
    WY,
    first,
    N,
    M,
    x_padded,
    stride_x,
    stride_y,
    HAS_X: tl.constexpr,
    HAS_Y: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The weights of some rows in float32, 0 behind the last row of a side."""
    at = first + tl.arange(0, BLOCK)
    if first < x_padded:
        inside = at < N
        weight = inside.to(tl.float32)
        if HAS_X:
            weight = tl.load(WX + at.to(tl.int64) * stride_x, mask=inside, other=0).to(tl.float32)
    else:
        at -= x_padded
        inside = at < M
        weight = inside.to(tl.float32)
        if HAS_Y:
            weight = tl.load(WY + at.to(tl.int64) * stride_y, mask=inside, other=0).to(tl.float32)
    return weight


@triton.jit
def _values(
    X, Y, first, d, D, x_padded, stride_xr, stride_xd, stride_yr, stride_yd, present, BLOCK: tl.constexpr
):
    """The present ones of some rows in float32; the others, and columns behind the last, are zeros."""
    at = (first + tl.arange(0, BLOCK)).to(tl.int64)
    mask = present[:, None] & (d < D)[None, :]
    columns = d.to(tl.int64)[None, :]
    if first < x_padded:
        values = tl.load(X + at[:, None] * stride_xr + columns * stride_xd, mask=mask, other=0.0)
    else:
        at -= x_padded
        values = tl.load(Y + at[:, None] * stride_yr + columns * stride_yd, mask=mask, other=0.0)
    return values.to(tl.float32)


@triton.jit
def totals(
    X, Y, WX, WY, sums, counts, N, M, D, x_padded, padded, per_part,
    stride_xr, stride_xd, stride_yr, stride_yd, stride_wx, stride_wy,
    HAS_X: tl.constexpr, HAS_Y: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Of a part of the rows and some columns: the sums and sums of squares, [parts, 2, D]; the counts of the part."""
    part = tl.program_id(0)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), tl.float32)
    squares = tl.zeros((WIDTH,), tl.float32)
    count = tl.zeros((BLOCK,), tl.float32)
    greatest_x = tl.zeros((BLOCK,), tl.float32)
    greatest_y = tl.zeros((BLOCK,), tl.float32)
    start = part * per_part
    for first in range(start, tl.minimum(start + per_part, padded), BLOCK):
        weight = _weights(WX, WY, first, N, M, x_padded, stride_wx, stride_wy, HAS_X, HAS_Y, BLOCK)
        present = weight != 0
        values = _values(
            X, Y, first, d, D, x_padded, stride_xr, stride_xd, stride_yr, stride_yd, present, BLOCK
        )
        total += tl.sum(values, 0)
        squares += tl.sum(values * values, 0)
        count += present.to(tl.float32)
        greatest_x = tl.maximum(greatest_x, tl.where(first < x_padded, weight, 0.0))
        greatest_y = tl.maximum(greatest_y, tl.where(first < x_padded, 0.0, weight))
    to = sums + part.to(tl.int64) * 2 * D + d
    tl.store(to, total, mask=d < D)
    tl.store(to + D, squares, mask=d < D)
    if tl.program_id(1) == 0:
        tl.store(counts + part * COUNTS, tl.sum(count, 0))
        tl.store(counts + part * COUNTS + 1, tl.max(greatest_x, 0))
        tl.store(counts + part * COUNTS + 2, tl.max(greatest_y, 0))


@triton.jit
def prepare(
    X, Y, WX, WY, sums, counts, centre, scales, Z, halves, norms, shares, partials, shift,
    N, M, D, x_padded, parts,
    stride_xr, stride_xd, stride_yr, stride_yd, stride_wx, stride_wy,
    HAS_X: tl.constexpr, HAS_Y: tl.constexpr, KNOWN: tl.constexpr, TF32: tl.constexpr, SPLIT: tl.constexpr,
    PADDED_D: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Some rows less the centre, in their own precision; their squared lengths and relative weights.

    SPLIT: also as the nearest numbers of TF32 and what these leave, in `halves` [2, rows, PADDED_D].

    KNOWN: the centre and the greatest weights are those of an earlier run. Else they are of what `totals` left, and
    `partials` and `shift`, how far the centre is from the mean, are left for `settle`.
    """
    block = tl.program_id(0)
    first = block * BLOCK
    rows = first + tl.arange(0, BLOCK)
    p = tl.arange(0, PARTS)
    count = 1.0
    if KNOWN:
        unit = tl.load(scales + tl.where(first < x_padded, 4, 5))
    else:
        count = tl.maximum(tl.sum(tl.load(counts + p * COUNTS, mask=p < parts, other=0.0), 0), 1.0)
        peaks = counts + p * COUNTS + tl.where(first < x_padded, 1, 2)
        greatest = tl.max(tl.load(peaks, mask=p < parts, other=0.0), 0)
        unit = 1.0 / tl.where(greatest == 0, 1.0, greatest)
    weight = _weights(WX, WY, first, N, M, x_padded, stride_wx, stride_wy, HAS_X, HAS_Y, BLOCK)
    present = weight != 0
    share = weight * unit
    norm = tl.zeros((BLOCK,), tl.float32)
    moved = tl.zeros((WIDTH,), tl.float32)
    for d0 in range(0, PADDED_D, WIDTH):
        d = d0 + tl.arange(0, WIDTH)
        if KNOWN:
            middle = tl.load(centre + d, mask=d < D, other=0.0)
        else:
            mask = (p < parts)[:, None] & (d < D)[None, :]
            of = sums + p.to(tl.int64)[:, None] * 2 * D + d[None, :]
            mean = tl.sum(tl.load(of, mask=mask, other=0.0), 0) / count
            square = tl.sum(tl.load(of + D, mask=mask, other=0.0), 0) / count
            # A mean well inside the spread costs no digits. Such a column stays as it is, and its half-precision
            # numbers exact; NaN does not stay.
            middle = tl.where(4.0 * mean * mean <= square, 0.0, mean)
            moved += (mean - middle) * (mean - middle)
            if block == 0:
                tl.store(centre + d, middle, mask=d < D)
        values = _values(
            X, Y, first, d, D, x_padded, stride_xr, stride_xd, stride_yr, stride_yd, present, BLOCK
        )
        values = tl.where(present[:, None] & (d < D)[None, :], values - middle[None, :], 0.0)
        at = rows.to(tl.int64)[:, None] * PADDED_D + d[None, :]
        if TF32 or SPLIT:
            upper = tl.where(values == values, rounded(values, 0x1000), values)
            if SPLIT:
                tl.store(halves + at, upper)
                tl.store(halves + tl.num_programs(0).to(tl.int64) * BLOCK * PADDED_D + at, values - upper)
            else:
                values = upper
        kept = values.to(Z.dtype.element_ty)
        tl.store(Z + at, kept)
        norm += tl.sum(kept.to(tl.float32) * kept.to(tl.float32), 1)
    tl.store(norms + rows, norm)
    tl.store(shares + rows, share)
    if not KNOWN:
        tl.store(partials + block * PARTIALS, tl.sum(norm, 0))
        tl.store(partials + block * PARTIALS + 1, tl.sum(share, 0))
        tl.store(partials + block * PARTIALS + 2, tl.sum(share * share, 0))
        tl.store(partials + block * PARTIALS + 3, tl.sum(present.to(tl.float32), 0))
        if block == 0:
            tl.store(shift, tl.sum(moved, 0))

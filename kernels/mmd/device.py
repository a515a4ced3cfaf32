"""The kernels of the maximum mean discrepancy, on rows that lie as `triton.py` says.

Both samples are one buffer of padded rows, x's first: each side starts at a multiple of every block of rows, so that a
block never holds rows of both. A pair of blocks then has one factor, and a row that does not count is zeros.
"""

import triton
import triton.language as tl

# Numbers a part that `totals` leaves: present rows, greatest weight of x, of y.
COUNTS: tl.constexpr = tl.constexpr(4)
# Numbers a block that `prepare` leaves: squared lengths, relative weights, their squares, present rows.
PARTIALS: tl.constexpr = tl.constexpr(4)


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
def _rounded(values, HALF: tl.constexpr):
    """To fewer bits, still as float32; HALF is half of the last one that stays. NaN may come out as 0.

    By hand, since the conversion and back, of single numbers, takes as long as an exponential.
    """
    bits = values.to(tl.uint32, bitcast=True) + HALF
    return (bits & (0x100000000 - 2 * HALF)).to(tl.float32, bitcast=True)


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
            upper = tl.where(values == values, _rounded(values, 0x1000), values)
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


@triton.jit
def _added(partials, which, start, stop, BLOCK: tl.constexpr):
    """The sum of one of the numbers that the blocks from `start` to `stop` left, in float64."""
    total = tl.zeros((BLOCK,), tl.float64)
    for first in range(start, stop, BLOCK):
        at = first + tl.arange(0, BLOCK)
        total += tl.load(partials + at * PARTIALS + which, mask=at < stop, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def _over(value, total):
    return tl.where(total == 0, 0.0, value / tl.where(total == 0, 1.0, total))


@triton.jit
def settle(
    partials, shift, counts, bandwidth, scales, x_blocks, blocks, parts,
    HAS_BANDWIDTH: tl.constexpr, UNBIASED: tl.constexpr, KERNELS: tl.constexpr, WIDEST: tl.constexpr,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: all of `reference.SCALES`."""
    count_x = _added(partials, 3, 0, x_blocks, BLOCK)
    count_y = _added(partials, 3, x_blocks, blocks, BLOCK)
    lengths = _added(partials, 0, 0, blocks, BLOCK)
    if HAS_BANDWIDTH:
        width = tl.load(bandwidth).to(tl.float32)
    else:
        count = count_x + count_y
        spread = tl.maximum(
            lengths - count * tl.load(shift).to(tl.float64), 0.0, propagate_nan=tl.PropagateNan.ALL
        )
        width = (2.0 * spread / tl.maximum(count - 1.0, 1.0)).to(tl.float32)
    widest = width * WIDEST
    tl.store(scales, _over(1.0, widest))

    sum_x = _added(partials, 1, 0, x_blocks, BLOCK)
    sum_y = _added(partials, 1, x_blocks, blocks, BLOCK)
    squares_x = _added(partials, 2, 0, x_blocks, BLOCK)
    squares_y = _added(partials, 2, x_blocks, blocks, BLOCK)
    pairs_x = sum_x * sum_x
    pairs_y = sum_y * sum_y
    least = 1.0
    diagonal = _over(squares_x, pairs_x) + _over(squares_y, pairs_y)
    if UNBIASED:
        pairs_x -= squares_x
        pairs_y -= squares_y
        least = 2.0
        diagonal = diagonal * 0.0
    tl.store(scales + 1, _over(1.0, pairs_x).to(tl.float32))
    tl.store(scales + 2, _over(1.0, pairs_y).to(tl.float32))
    tl.store(scales + 3, _over(-1.0, sum_x * sum_y).to(tl.float32))

    p = tl.arange(0, PARTS)
    peak_x = tl.max(tl.load(counts + p * COUNTS + 1, mask=p < parts, other=0.0), 0)
    peak_y = tl.max(tl.load(counts + p * COUNTS + 2, mask=p < parts, other=0.0), 0)
    tl.store(scales + 4, 1.0 / tl.where(peak_x == 0, 1.0, peak_x))
    tl.store(scales + 5, 1.0 / tl.where(peak_y == 0, 1.0, peak_y))
    tl.store(scales + 6, (KERNELS * diagonal).to(tl.float32))
    # NaN in any row is NaN here, and from here in all gradients.
    sound = (lengths * 0.0).to(tl.float32) + 1.0
    tl.store(scales + 7, tl.where((count_x >= least) & (count_y >= least), sound, 0.0))


@triton.jit
def _widest(product, half_i, half_j, inverse):
    """The kernel of the greatest bandwidth, of the products and the scaled squared lengths of two blocks."""
    exponent = product * (2.0 * inverse) - half_i[:, None] - half_j[None, :]
    return tl.exp2(tl.minimum(exponent, 0.0, propagate_nan=tl.PropagateNan.ALL))


@triton.jit
def _products(Z, row, column, padded, WIDTH: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr,
              COLUMNS: tl.constexpr, SPLIT: tl.constexpr):  # fmt: skip
    """z_i . z_j of the blocks from `row` and from `column`, K numbers at a time.

    SPLIT: of float32 rows that lie in two halves as `prepare` says, in TF32. What is left out, the product of the lower
    halves, is below float32's own rounding. Tensor cores cut their sums off: only short ones are left to them.
    """
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    k = tl.arange(0, K)
    # One pointer a block and small offsets: a pointer for each number would want most registers.
    to_i = Z + tl.cast(row, tl.int64) * WIDTH
    to_j = Z + tl.cast(column, tl.int64) * WIDTH
    of_i = tl.arange(0, ROWS)[:, None] * WIDTH + k[None, :]
    of_j = tl.arange(0, COLUMNS)[:, None] * WIDTH + k[None, :]
    lower = padded.to(tl.int64) * WIDTH
    for k0 in range(0, WIDTH, K):
        zi = tl.load(to_i + k0 + of_i)
        zj = tl.trans(tl.load(to_j + k0 + of_j))
        if SPLIT:
            lower_j = tl.trans(tl.load(to_j + lower + k0 + of_j))
            lower_i = tl.load(to_i + lower + k0 + of_i)
            part = tl.dot(lower_i, zj, tl.dot(zi, lower_j, input_precision="tf32"), input_precision="tf32")
            product += tl.dot(zi, zj, part, input_precision="tf32")
        else:
            product = tl.dot(zi, zj, product, input_precision="tf32")
    return product


@triton.jit
def triangle(
    Z, norms, shares, scales, partials, x_padded, padded, row_blocks, per_part,
    WIDTH: tl.constexpr, KERNELS: tl.constexpr, SPLIT: tl.constexpr, HELD: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """A part of what all pairs i < j add up to.

    The first block of rows meets most columns and the last fewest: one program takes its part of the columns of a
    block from the front, and of its twin from the back, which together are always the same number.
    """
    fold = tl.program_id(0)
    part = tl.program_id(1)
    inverse = tl.load(scales) * 1.4426950408889634
    across = tl.load(scales + 3)
    # Counted in blocks of columns, through the first block of rows and on through its twin.
    front = (padded - fold * ROWS) // COLUMNS
    begin = part * per_part
    end = begin + per_part
    value = tl.zeros((ROWS,), tl.float32)
    for twin in range(2):
        block = tl.where(twin == 0, fold, row_blocks - 1 - fold)
        diagonal = block * ROWS
        # In the middle a block is its own twin.
        here = tl.where((twin == 1) & (block == fold), 0, (padded - diagonal) // COLUMNS)
        skipped = tl.where(twin == 0, 0, front)
        start = tl.minimum(tl.maximum(begin - skipped, 0), here)
        stop = tl.minimum(tl.maximum(end - skipped, 0), here)
        rows = diagonal + tl.arange(0, ROWS)
        within = tl.load(scales + tl.where(diagonal < x_padded, 1, 2))
        half_i = tl.load(norms + rows) * inverse
        at_rows = Z + rows.to(tl.int64)[:, None] * WIDTH + tl.arange(0, K)[None, :]
        row_sums = tl.zeros((ROWS,), tl.float32)
        if HELD:
            zi = tl.load(at_rows)
        for first in range(diagonal + start * COLUMNS, diagonal + stop * COLUMNS, COLUMNS):
            columns = first + tl.arange(0, COLUMNS)
            half_j = tl.load(norms + columns) * inverse
            share = tl.load(shares + columns) * tl.where(
                (first < x_padded) == (diagonal < x_padded), within, across
            )
            if HELD:
                zj = tl.load(Z + columns.to(tl.int64)[:, None] * WIDTH + tl.arange(0, K)[None, :])
                product = tl.dot(zi, tl.trans(zj), input_precision="tf32")
            else:
                product = _products(Z, diagonal, first, padded, WIDTH, K, ROWS, COLUMNS, SPLIT)
            power = _widest(product, half_i, half_j, inverse)
            kernel = power
            for _ in tl.static_range(1, KERNELS):
                power = power * power
                kernel += power
            counted = kernel * share[None, :]
            row_sums += tl.sum(tl.where(columns[None, :] > rows[:, None], counted, 0.0), 1)
        value += row_sums * tl.load(shares + rows)
    tl.store(partials + fold * tl.num_programs(1) + part, 2.0 * tl.sum(value, 0))


@triton.jit
def finish(partials, scales, value, count, BLOCK: tl.constexpr):
    """One program: the answer."""
    total = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, count, BLOCK):
        at = first + tl.arange(0, BLOCK)
        total += tl.load(partials + at, mask=at < count, other=0.0).to(tl.float64)
    answer = tl.sum(total, 0).to(tl.float32) + tl.load(scales + 6)
    tl.store(value, tl.where(tl.load(scales + 7) == 0, 0.0, answer))


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
    power = _widest(product, half_i, half_j, inverse)
    slope = power
    for q in tl.static_range(1, KERNELS):
        power = power * power
        slope += power * (1 << q)
    return tl.where(rows[:, None] == columns[None, :], 0.0, slope * weight[None, :])


@triton.jit
def _seen(slope, dtype: tl.constexpr, TF32: tl.constexpr):
    """The slopes as a product of `dtype` sees them, still as float32: z_i less z_j is then weighed by one number."""
    if dtype == tl.bfloat16:
        slope = _rounded(slope, 0x8000)
    elif dtype == tl.float16:
        slope = slope.to(tl.float16).to(tl.float32)
    elif TF32:
        slope = _rounded(slope, 0x1000)
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
        product = _products(Z, first_row + start_row + at, first, padded, WIDTH, K, ROWS, COLUMNS, SPLIT)
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

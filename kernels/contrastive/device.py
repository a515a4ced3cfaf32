"""The Triton kernels of the contrastive losses: each passes once over a tile of dot products, in float32."""

import triton
import triton.language as tl

#: Below every logit, and finite, so that the difference of two of them is a number.
LOWEST = tl.constexpr(-3.0e38)


@triton.jit
def _block(dots, rows, columns, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = row.to(tl.int64)[:, None] * columns + column[None, :]
    return row, column, inside, at, tl.load(dots + at, mask=inside, other=0.0)


@triton.jit(do_not_specialize=["shift", "first_row", "first_column", "first_block", "row_parts"])
def clip_forward(
    dots,
    logit_scale,
    row_pairs,  # [2, row_parts, rows]: of each block's columns
    column_pairs,  # [2, column_parts, all_columns]: of each block's rows
    diagonal,  # [all rows]
    rows,
    columns,
    all_columns,
    row_parts,
    first_row,
    first_column,
    first_block,
    shift,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Of each block: the pair (greatest logit, sum of exponentials relative to it) of its rows and of its columns."""
    row, column, inside, _, d = _block(dots, rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    scale = tl.load(logit_scale)
    s = tl.where(inside, d * scale, LOWEST)

    top = tl.max(s, 1)
    total = tl.sum(tl.exp(s - top[:, None]), 1)
    part = (first_block + tl.program_id(0)).to(tl.int64) * rows + row
    tl.store(row_pairs + part, top, mask=row < rows)
    tl.store(row_pairs + row_parts.to(tl.int64) * rows + part, total, mask=row < rows)

    top = tl.max(s, 0)
    total = tl.sum(tl.exp(s - top[None, :]), 0)
    part = tl.program_id(1).to(tl.int64) * all_columns + first_column + column
    tl.store(column_pairs + part, top, mask=column < columns)
    plane = tl.num_programs(1).to(tl.int64) * all_columns
    tl.store(column_pairs + plane + part, total, mask=column < columns)

    matching = row + shift
    here = tl.program_id(0) * BLOCK_COLUMNS
    own = (row < rows) & (matching >= here) & (matching < tl.minimum(here + BLOCK_COLUMNS, columns))
    found = tl.load(dots + row.to(tl.int64) * columns + matching, mask=own, other=0.0)
    tl.store(diagonal + first_row + row, found * scale, mask=own)


@triton.jit(do_not_specialize=["parts", "first"])
def join(
    pairs,  # [2, parts, length]
    joined,  # [2, all]
    parts,
    length,
    all_length,
    first,
    IS_FIRST: tl.constexpr,
    IS_LAST: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Joins the pairs of all parts to the one that is there, in a fixed order. The last gets the sum's log."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < length
    if IS_FIRST:
        top = tl.full([BLOCK], LOWEST, tl.float32)
        total = tl.zeros([BLOCK], tl.float32)
    else:
        top = tl.load(joined + first + at, mask=inside, other=LOWEST)
        total = tl.load(joined + all_length + first + at, mask=inside, other=0.0)
    plane = parts.to(tl.int64) * length
    for start in range(0, parts, BLOCK_PARTS):
        part = start + tl.arange(0, BLOCK_PARTS)
        present = (part < parts)[:, None] & inside[None, :]
        of = part.to(tl.int64)[:, None] * length + at[None, :]
        tops = tl.load(pairs + of, mask=present, other=LOWEST)
        totals = tl.load(pairs + plane + of, mask=present, other=0.0)
        greatest = tl.maximum(top, tl.max(tops, 0))
        total = total * tl.exp(top - greatest) + tl.sum(totals * tl.exp(tops - greatest[None, :]), 0)
        top = greatest
    if IS_LAST:
        total = tl.log(tl.where(inside, total, 1.0))
    tl.store(joined + first + at, top, mask=inside)
    tl.store(joined + all_length + first + at, total, mask=inside)


@triton.jit(do_not_specialize=["shift", "first_row", "first_column", "first_part"])
def clip_backward(
    dots,
    logit_scale,
    row_pairs,  # [2, all_rows]
    column_pairs,  # [2, all_columns]
    gradient,  # [rows, columns]
    scale_parts,
    rows,
    columns,
    all_rows,
    all_columns,
    first_row,
    first_column,
    first_part,
    shift,
    WITH_SCALE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The gradient of 2 n times the mean loss by each logit, in [-2, 2]; and its sum with the dot products."""
    row, column, inside, at, d = _block(dots, rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    s = tl.where(inside, d * tl.load(logit_scale), LOWEST)
    row_top = tl.load(row_pairs + first_row + row, mask=row < rows, other=0.0)
    row_log = tl.load(row_pairs + all_rows + first_row + row, mask=row < rows, other=0.0)
    column_top = tl.load(column_pairs + first_column + column, mask=column < columns, other=0.0)
    column_log = tl.load(column_pairs + all_columns + first_column + column, mask=column < columns, other=0.0)
    of_row = tl.exp(s - row_top[:, None] - row_log[:, None])
    of_column = tl.exp(s - column_top[None, :] - column_log[None, :])
    # One from each share and not two from their sum: near convergence the difference is all there is.
    label = tl.where((row + shift)[:, None] == column[None, :], 1.0, 0.0)
    g = (of_row - label) + (of_column - label)
    tl.store(gradient + at, g.to(gradient.dtype.element_ty), mask=inside)
    if WITH_SCALE:
        total = tl.sum(tl.sum(g * d, 1), 0)
        part = first_part + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        tl.store(scale_parts + part, total)


@triton.jit
def _softplus_and_sigmoid(x):
    e = tl.exp(-tl.abs(x))
    # log(1 + e) as 2 artanh(e / (2 + e)): the argument is at most 1/3, and a small e is not rounded away.
    z = e / (2.0 + e)
    q = z * z
    series = 1.0 / 13.0 + q * (1.0 / 15.0)
    series = 1.0 / 11.0 + q * series
    series = 1.0 / 9.0 + q * series
    series = 1.0 / 7.0 + q * series
    series = 1.0 / 5.0 + q * series
    series = 1.0 / 3.0 + q * series
    log_of_sum = 2.0 * z * (1.0 + q * series)
    share = 1.0 / (1.0 + e)
    positive = tl.where(x < 0.0, 0.0, x)
    return positive + log_of_sum, tl.where(x < 0.0, e * share, share)


@triton.jit(do_not_specialize=["shift", "first_part", "all_parts"])
def siglip(
    dots,
    logit_scale,
    logit_bias,
    gradient,  # [rows, columns]
    parts,  # [3, all_parts]: loss, gradient of the scale, gradient of the bias
    rows,
    columns,
    all_parts,
    first_part,
    shift,
    WITH_GRADIENT: tl.constexpr,
    WITH_SCALARS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The loss of every pair, summed; its gradient by each logit; and that one's sums."""
    row, column, inside, at, d = _block(dots, rows, columns, BLOCK_ROWS, BLOCK_COLUMNS)
    s = d * tl.load(logit_scale) + tl.load(logit_bias)
    matching = (row + shift)[:, None] == column[None, :]
    loss, towards = _softplus_and_sigmoid(tl.where(matching, -s, s))
    part = first_part + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(parts + part, tl.sum(tl.sum(tl.where(inside, loss, 0.0), 1), 0))
    g = tl.where(inside, tl.where(matching, -towards, towards), 0.0)
    if WITH_GRADIENT:
        tl.store(gradient + at, g.to(gradient.dtype.element_ty), mask=inside)
    if WITH_SCALARS:
        tl.store(parts + all_parts + part, tl.sum(tl.sum(g * d, 1), 0))
        tl.store(parts + 2 * all_parts + part, tl.sum(tl.sum(g, 1), 0))

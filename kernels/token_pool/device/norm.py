"""The gradients of the norm's weight and bias."""

import triton
import triton.language as tl


@triton.jit
def norm_gradient(
    DY,
    s_row,
    s_column,
    Pooled,
    Lengths,
    Bounds,
    DWeight,
    DBias,
    rows,
    most,
    share,
    WIDTH: tl.constexpr,
    W: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Of W columns, the sums over one share of the rows: into the gradients, or a row of the parts of them."""
    column = tl.program_id(0) * W + tl.arange(0, W)
    part = tl.program_id(1).to(tl.int64)
    low = part * share
    high = tl.minimum(low + share, rows)
    weight = tl.zeros([ROWS, W], tl.float32)
    bias = tl.zeros([ROWS, W], tl.float32)
    for first in tl.range(low, high, ROWS):
        row = first + tl.arange(0, ROWS)
        is_row = row < high
        if Bounds is not None:
            start = tl.minimum(tl.maximum(tl.load(Bounds + row, mask=is_row, other=0).to(tl.int64), 0), most)
            end = tl.minimum(
                tl.maximum(tl.load(Bounds + row + 1, mask=is_row, other=0).to(tl.int64), 0), most
            )
            is_row = is_row & (end > start)
        else:
            if Lengths is not None:
                is_row = is_row & (tl.load(Lengths + row, mask=is_row, other=0) > 0)
        mask = is_row[:, None] & (column < WIDTH)[None, :]
        dy = tl.load(DY + (row * s_row)[:, None] + (column * s_column)[None, :], mask=mask, other=0.0)
        bias += dy.to(tl.float32)
        if DWeight is not None:
            pooled = tl.load(Pooled + (row * WIDTH)[:, None] + column[None, :], mask=mask, other=0.0)
            weight += dy.to(tl.float32) * pooled
    if DWeight is not None:
        sums = tl.sum(weight, 0).to(DWeight.dtype.element_ty)
        tl.store(DWeight + part * WIDTH + column, sums, mask=column < WIDTH)
    if DBias is not None:
        sums = tl.sum(bias, 0).to(DBias.dtype.element_ty)
        tl.store(DBias + part * WIDTH + column, sums, mask=column < WIDTH)


@triton.jit
def join_norm_gradients(Parts, Out, parts, WIDTH: tl.constexpr, W: tl.constexpr, PARTS: tl.constexpr):
    column = tl.program_id(0) * W + tl.arange(0, W)
    part = tl.arange(0, PARTS)
    mask = (part < parts)[:, None] & (column < WIDTH)[None, :]
    sums = tl.load(Parts + part[:, None] * WIDTH + column[None, :], mask=mask, other=0.0)
    tl.store(Out + column, tl.sum(sums, 0).to(Out.dtype.element_ty), mask=column < WIDTH)

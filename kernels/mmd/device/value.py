"""The discrepancy itself: the sum over all pairs."""

import triton
import triton.language as tl

from kernels.mmd.device.parts import products, widest


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
                product = products(Z, diagonal, first, padded, WIDTH, K, ROWS, COLUMNS, SPLIT)
            power = widest(product, half_i, half_j, inverse)
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

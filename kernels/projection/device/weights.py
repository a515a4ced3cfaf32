"""The weight's gradient."""

import triton
import triton.language as tl

from kernels.projection.device.parts import counts_of, grouped


@triton.jit
def weight_tile(
    tile,
    part,
    dz,
    dz_row,
    dz_column,
    x,
    x_row,
    x_column,
    share,
    share_row,
    dweight,
    dweight_row,
    width,
    rows_in_all,
    outputs_in_all,
    HAS_SHARES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    GROUP: tl.constexpr,
):
    output_tile, input_tile = grouped(
        tile, tl.cdiv(outputs_in_all, BLOCK_OUTPUTS), tl.cdiv(width, BLOCK_INPUTS), GROUP
    )
    outputs = output_tile * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    inputs = input_tile * BLOCK_INPUTS + tl.arange(0, BLOCK_INPUTS)
    is_output, is_input = outputs < outputs_in_all, inputs < width
    tiles = tl.cdiv(tl.cdiv(rows_in_all, BLOCK_ROWS), SPLIT)
    first = part * tiles
    dz_at = dz + outputs[:, None].to(tl.int64) * dz_column
    x_at = x + inputs[None, :].to(tl.int64) * x_column
    sums = tl.zeros((BLOCK_OUTPUTS, BLOCK_INPUTS), dtype=tl.float32)
    for step in range(first, first + tiles):
        rows = step * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        present = rows < rows_in_all
        if HAS_SHARES:
            counts = counts_of(share, share_row, 0, rows, present, 0)
            present = counts != 0
        # Of an absent entry neither is read: its x may be poison, and so may its row's gradient.
        some_dz = tl.load(
            dz_at + rows[None, :].to(tl.int64) * dz_row,
            mask=present[None, :] & is_output[:, None],
            other=0.0,
        )
        some_x = tl.load(
            x_at + rows[:, None].to(tl.int64) * x_row, mask=present[:, None] & is_input[None, :], other=0.0
        )
        if WEIGHTED:
            some_dz = (some_dz.to(tl.float32) * counts[None, :]).to(some_x.dtype)
        sums = tl.dot(some_dz, some_x, sums)
    at = (part.to(tl.int64) * outputs_in_all + outputs[:, None]) * dweight_row + inputs[None, :]
    tl.store(dweight + at, sums.to(dweight.dtype.element_ty), mask=is_output[:, None] & is_input[None, :])


@triton.jit(do_not_specialize=["rows_in_all"])
def to_weight(
    dz,
    dz_row,
    dz_column,
    xs,
    x_rows,
    x_columns,
    starts,
    shares,
    share_row,
    dweight,
    dweight_row,
    widths,
    rows_in_all,
    outputs_in_all,
    MODALITIES: tl.constexpr,
    HAS_SHARES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """The modalities' blocks of dweight = (share x dz).T @ x, a tile a program.

    With SPLIT > 1 each program adds up one part of the rows, and `dweight` is [SPLIT, outputs, inputs], for `fold`.
    """
    tile = tl.program_id(0)
    passed = 0
    for m in tl.static_range(MODALITIES):
        tiles = tl.cdiv(outputs_in_all, BLOCK_OUTPUTS) * tl.cdiv(widths[m], BLOCK_INPUTS)
        if (tile >= passed) & (tile < passed + tiles):
            weight_tile(
                tile - passed,
                tl.program_id(1),
                dz,
                dz_row,
                dz_column,
                xs[m],
                x_rows[m],
                x_columns[m],
                shares[m],
                share_row,
                dweight + starts[m],
                dweight_row,
                widths[m],
                rows_in_all,
                outputs_in_all,
                HAS_SHARES,
                WEIGHTED,
                SPLIT,
                BLOCK_OUTPUTS,
                BLOCK_INPUTS,
                BLOCK_ROWS,
                GROUP,
            )
        passed += tiles


@triton.jit(do_not_specialize=["rows_in_all"])
def weigh(
    source,
    source_row,
    source_column,
    share,
    share_row,
    weighed,
    weighed_row,
    rows_in_all,
    width,
    WEIGHTED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rows times their share; those that are absent are 0 and are not read."""
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_row, is_column = rows < rows_in_all, columns < width
    counts = counts_of(share, share_row, 0, rows, is_row, 0)
    at = source + rows[:, None].to(tl.int64) * source_row + columns[None, :].to(tl.int64) * source_column
    some = tl.load(at, mask=(counts != 0)[:, None] & is_column[None, :], other=0.0)
    if WEIGHTED:
        some = (some.to(tl.float32) * counts[:, None]).to(weighed.dtype.element_ty)
    to = weighed + rows[:, None].to(tl.int64) * weighed_row + columns[None, :]
    tl.store(to, some, mask=is_row[:, None] & is_column[None, :])

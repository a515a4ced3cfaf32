"""The inputs' gradients."""

import triton
import triton.language as tl

from kernels.projection.device.parts import counts_of, grouped


@triton.jit
def input_tile(
    tile,
    dz,
    dz_row,
    dz_column,
    weight,
    weight_row,
    weight_column,
    share,
    share_row,
    dx,
    width,
    rows_in_all,
    outputs_in_all,
    HAS_SHARES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    GROUP: tl.constexpr,
):
    row_tile, input_tile = grouped(
        tile, tl.cdiv(rows_in_all, BLOCK_ROWS), tl.cdiv(width, BLOCK_INPUTS), GROUP
    )
    rows = row_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inputs = input_tile * BLOCK_INPUTS + tl.arange(0, BLOCK_INPUTS)
    outputs = tl.arange(0, BLOCK_OUTPUTS)
    is_row, is_input = rows < rows_in_all, inputs < width
    tiles = tl.cdiv(outputs_in_all, BLOCK_OUTPUTS)
    if HAS_SHARES:
        counts = counts_of(share, share_row, 0, rows, is_row, 0)
        tiles = tl.where(tl.max((counts != 0).to(tl.int32), 0) > 0, tiles, 0)
    dz_at = dz + rows[:, None].to(tl.int64) * dz_row + outputs[None, :].to(tl.int64) * dz_column
    weight_at = (
        weight + outputs[:, None].to(tl.int64) * weight_row + inputs[None, :].to(tl.int64) * weight_column
    )
    sums = tl.zeros((BLOCK_ROWS, BLOCK_INPUTS), dtype=tl.float32)
    for step in range(tiles):
        start = step * BLOCK_OUTPUTS
        is_output = start + outputs < outputs_in_all
        skip = start.to(tl.int64)
        some_dz = tl.load(dz_at + skip * dz_column, mask=is_row[:, None] & is_output[None, :], other=0.0)
        some_weight = tl.load(
            weight_at + skip * weight_row, mask=is_output[:, None] & is_input[None, :], other=0.0
        )
        sums = tl.dot(some_dz, some_weight, sums)
    if HAS_SHARES:
        if WEIGHTED:
            sums *= counts[:, None]
        # By selection: the row's gradient may be NaN, and 0 x NaN is NaN.
        sums = tl.where((counts != 0)[:, None], sums, 0.0)
    at = rows[:, None].to(tl.int64) * width + inputs[None, :]
    tl.store(dx + at, sums.to(dx.dtype.element_ty), mask=is_row[:, None] & is_input[None, :])


@triton.jit(do_not_specialize=["rows_in_all"])
def to_inputs(
    dz,
    dz_row,
    dz_column,
    weight,
    weight_row,
    weight_column,
    starts,
    shares,
    share_row,
    dxs,
    widths,
    rows_in_all,
    outputs_in_all,
    MODALITIES: tl.constexpr,
    HAS_SHARES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """dx = share x (dz @ the modality's block of the weight) for each of these modalities, a tile a program."""
    tile = tl.program_id(0)
    passed = 0
    for m in tl.static_range(MODALITIES):
        tiles = tl.cdiv(rows_in_all, BLOCK_ROWS) * tl.cdiv(widths[m], BLOCK_INPUTS)
        if (tile >= passed) & (tile < passed + tiles):
            input_tile(
                tile - passed,
                dz,
                dz_row,
                dz_column,
                weight + starts[m] * weight_column,
                weight_row,
                weight_column,
                shares[m],
                share_row,
                dxs[m],
                widths[m],
                rows_in_all,
                outputs_in_all,
                HAS_SHARES,
                WEIGHTED,
                BLOCK_ROWS,
                BLOCK_INPUTS,
                BLOCK_OUTPUTS,
                GROUP,
            )
        passed += tiles

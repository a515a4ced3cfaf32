"""The inputs' and the weight's gradients in one launch."""

import triton
import triton.language as tl

from kernels.projection.device.inputs import input_tile
from kernels.projection.device.weights import weight_tile


@triton.jit(do_not_specialize=["rows_in_all"])
def to_both(
    dz,
    dz_row,
    dz_column,
    weight,
    weight_row,
    weight_column,
    xs,
    x_rows,
    x_columns,
    starts,
    shares,
    widths,
    share_row,
    dweight,
    dweight_row,
    dxs,
    dx_starts,
    dx_shares,
    dx_widths,
    rows_in_all,
    outputs_in_all,
    MODALITIES: tl.constexpr,
    WANTED: tl.constexpr,
    HAS_SHARES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_SIDE: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """`to_weight` and `to_inputs` in one launch: the few long tiles of the weight first, the short ones fill up."""
    tile = tl.program_id(0)
    passed = 0
    for m in tl.static_range(MODALITIES):
        tiles = tl.cdiv(outputs_in_all, BLOCK_SIDE) * tl.cdiv(widths[m], BLOCK_INPUTS)
        if (tile >= passed) & (tile < passed + tiles * SPLIT):
            weight_tile(
                (tile - passed) % tiles,
                (tile - passed) // tiles,
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
                BLOCK_SIDE,
                BLOCK_INPUTS,
                BLOCK_DEPTH,
                GROUP,
            )
        passed += tiles * SPLIT
    for n in tl.static_range(WANTED):
        tiles = tl.cdiv(rows_in_all, BLOCK_SIDE) * tl.cdiv(dx_widths[n], BLOCK_INPUTS)
        if (tile >= passed) & (tile < passed + tiles):
            input_tile(
                tile - passed,
                dz,
                dz_row,
                dz_column,
                weight + dx_starts[n] * weight_column,
                weight_row,
                weight_column,
                dx_shares[n],
                share_row,
                dxs[n],
                dx_widths[n],
                rows_in_all,
                outputs_in_all,
                HAS_SHARES,
                WEIGHTED,
                BLOCK_SIDE,
                BLOCK_INPUTS,
                BLOCK_DEPTH,
                GROUP,
            )
        passed += tiles

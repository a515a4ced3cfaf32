"""The forward: all modalities' products added up, and LayerNorm with the activation behind them."""

import triton
import triton.language as tl

from kernels.projection.device.parts import (
    activated,
    counts_of,
    grouped,
    products,
    products_of_all,
    reciprocal,
    standardised,
    vector,
)


@triton.jit(do_not_specialize=["rows_in_all"])
def add_up(
    xs,
    x_rows,
    x_columns,
    widths,
    weight,
    weight_row,
    weight_column,
    bias,
    mask,
    mask_row,
    mask_column,
    y,
    z,
    rows_in_all,
    outputs_in_all,
    MODALITIES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    WEIGHTED: tl.constexpr,
    MEAN: tl.constexpr,
    ACTIVATION: tl.constexpr,
    STORES_Y: tl.constexpr,
    STORES_Z: tl.constexpr,
    SPLIT: tl.constexpr,
    LOOPS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """z = the sum over all modalities (+ bias), y = its activation, a tile a program.

    With SPLIT > 1 each program adds up one part of the inputs, and `z` is [SPLIT, rows, outputs] of bare sums. LOOPS is
    1 for one loop over all modalities, which skips none, and 2 for a loop of each.
    """
    row_tile, output_tile = grouped(
        tl.program_id(0), tl.cdiv(rows_in_all, BLOCK_ROWS), tl.cdiv(outputs_in_all, BLOCK_OUTPUTS), GROUP
    )
    rows = row_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    outputs = output_tile * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    is_row, is_output = rows < rows_in_all, outputs < outputs_in_all
    part = tl.program_id(1)
    tiles_in_all = 0
    for m in tl.static_range(MODALITIES):
        tiles_in_all += tl.cdiv(widths[m], BLOCK_INPUTS)
    share_of_tiles = tl.cdiv(tiles_in_all, SPLIT)

    sums = tl.zeros((BLOCK_ROWS, BLOCK_OUTPUTS), dtype=tl.float32)
    unit = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    if LOOPS == 1:
        sums = products_of_all(
            sums,
            xs,
            x_rows,
            widths,
            weight,
            weight_row,
            weight_column,
            mask,
            mask_row,
            mask_column,
            rows,
            is_row,
            outputs,
            is_output,
            part * share_of_tiles,
            tl.minimum((part + 1) * share_of_tiles, tiles_in_all),
            MODALITIES,
            HAS_MASK,
            BLOCK_INPUTS,
        )
    else:
        passed_tiles, passed_inputs = 0, 0
        for m in tl.static_range(MODALITIES):
            first = 0
            last = tl.cdiv(widths[m], BLOCK_INPUTS)
            if SPLIT > 1:
                first = tl.maximum(part * share_of_tiles - passed_tiles, 0)
                last = tl.minimum(last, (part + 1) * share_of_tiles - passed_tiles)
            present = is_row
            block = weight + passed_inputs * weight_column
            if HAS_MASK:
                counts = counts_of(mask, mask_row, mask_column, rows, is_row, m)
                present = counts != 0
                # No row of this tile has the modality: nothing of it is read, neither x nor weight.
                last = tl.where(tl.max(present.to(tl.int32), 0) > 0, last, first)
            if WEIGHTED:
                # The sums stand in units of what the last modality counted for: one accumulator does for all weights, and
                # weights of 0 and 1 change no bit. A weight far below the last one is raised to where it is still nothing.
                own = tl.where(present, tl.maximum(counts, unit * 1e-12), unit)
                sums *= tl.where(present, unit / tl.where(present, own, 1.0), 1.0)[:, None]
                unit = own
            sums = products(
                sums,
                xs[m],
                x_rows[m],
                x_columns[m],
                block,
                weight_row,
                weight_column,
                rows,
                present,
                outputs,
                is_output,
                widths[m],
                first,
                last,
                BLOCK_INPUTS,
            )
            passed_tiles += tl.cdiv(widths[m], BLOCK_INPUTS)
            passed_inputs += widths[m]
    if WEIGHTED:
        sums *= unit[:, None]

    at = rows[:, None].to(tl.int64) * outputs_in_all + outputs[None, :]
    inside = is_row[:, None] & is_output[None, :]
    if SPLIT > 1:
        at += part.to(tl.int64) * rows_in_all * outputs_in_all
    else:
        if MEAN:
            scale = reciprocal(mask, mask_row, mask_column, rows, is_row, MODALITIES, HAS_MASK)
            sums *= scale[:, None]
        if HAS_BIAS:
            sums += tl.load(bias + outputs, mask=is_output, other=0.0).to(tl.float32)[None, :]
    if STORES_Z:
        tl.store(z + at, sums.to(z.dtype.element_ty), mask=inside)
    if STORES_Y:
        tl.store(y + at, activated(sums, ACTIVATION).to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows_in_all"])
def finish(
    sums,
    bias,
    norm_weight,
    norm_bias,
    mask,
    mask_row,
    mask_column,
    y,
    z,
    rows_in_all,
    outputs_in_all,
    eps,
    MODALITIES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    MEAN: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_NORM_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    STORES_Z: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
):
    """What is left once the products are summed: the parts, in their order, the mean, bias, LayerNorm, activation.

    With LayerNorm a program holds whole rows.
    """
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    outputs = tl.program_id(1) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    is_row, is_output = rows < rows_in_all, outputs < outputs_in_all
    at = rows[:, None].to(tl.int64) * outputs_in_all + outputs[None, :]
    inside = is_row[:, None] & is_output[None, :]
    total = tl.load(sums + at, mask=inside, other=0.0).to(tl.float32)
    size = rows_in_all.to(tl.int64) * outputs_in_all
    for part in tl.static_range(1, SPLIT):
        total += tl.load(sums + part * size + at, mask=inside, other=0.0).to(tl.float32)
    if MEAN:
        scale = reciprocal(mask, mask_row, mask_column, rows, is_row, MODALITIES, HAS_MASK)
        total *= scale[:, None]
    if HAS_BIAS:
        total += tl.load(bias + outputs, mask=is_output, other=0.0).to(tl.float32)[None, :]
    if STORES_Z:
        tl.store(z + at, total.to(z.dtype.element_ty), mask=inside)
    if HAS_NORM:
        standard, _ = standardised(total, is_output, outputs_in_all, eps)
        total = standard * vector(norm_weight, outputs, is_output, True)
        total += vector(norm_bias, outputs, is_output, HAS_NORM_BIAS)
    tl.store(y + at, activated(total, ACTIVATION).to(y.dtype.element_ty), mask=inside)

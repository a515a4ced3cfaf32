"""The way back from the output to the sum before LayerNorm and activation, with the vectors' gradients."""

import triton
import triton.language as tl

from kernels.projection.device.parts import counts_of, reciprocal, standardised, through_activation, vector


@triton.jit(do_not_specialize=["rows_in_all", "blocks_each"])
def to_sum(
    grad,
    grad_row,
    grad_column,
    z,
    norm_weight,
    norm_bias,
    mask,
    mask_row,
    mask_column,
    shares,
    dz,
    parts,
    rows_in_all,
    outputs_in_all,
    blocks_each,
    eps,
    MODALITIES: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_NORM_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    STORES_DZ: tl.constexpr,
    SCALES_DZ: tl.constexpr,
    STORES_SHARES: tl.constexpr,
    SUMS_BIAS: tl.constexpr,
    SUMS_NORM_WEIGHT: tl.constexpr,
    SUMS_NORM_BIAS: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
):
    """Back through activation and LayerNorm to the gradient of the sum, `blocks_each` blocks of rows a program.

    dz is that gradient, with SCALES_DZ times 1 / what the row's modalities count for. `parts` are the program's own
    sums over its rows, [those wanted of bias, norm weight, norm bias; programs; outputs], for `fold`. `shares` are
    [modalities, rows]: what each entry counts for, divided.
    """
    program = tl.program_id(0)
    outputs = tl.program_id(1) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    is_output = outputs < outputs_in_all
    of_bias = tl.zeros((BLOCK_ROWS, BLOCK_OUTPUTS), dtype=tl.float32)
    of_norm_weight = tl.zeros((BLOCK_ROWS, BLOCK_OUTPUTS), dtype=tl.float32)
    of_norm_bias = tl.zeros((BLOCK_ROWS, BLOCK_OUTPUTS), dtype=tl.float32)

    slope = vector(norm_weight, outputs, is_output, HAS_NORM)
    shift = vector(norm_bias, outputs, is_output, HAS_NORM_BIAS)
    # Loads ahead of the arithmetic: few programs hold many rows in registers.
    for block in tl.range(program * blocks_each, (program + 1) * blocks_each, num_stages=STAGES):
        rows = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        is_row = rows < rows_in_all
        inside = is_row[:, None] & is_output[None, :]
        at = rows[:, None].to(tl.int64) * outputs_in_all + outputs[None, :]
        grad_at = grad + rows[:, None].to(tl.int64) * grad_row + outputs[None, :].to(tl.int64) * grad_column
        du = tl.load(grad_at, mask=inside, other=0.0).to(tl.float32)
        if HAS_NORM:
            sums = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
            standard, rstd = standardised(sums, is_output, outputs_in_all, eps)
            du = through_activation(du, standard * slope + shift, ACTIVATION)
            of_norm_weight += du * standard
            of_norm_bias += du
            weighed = du * slope
            along = tl.sum(weighed * standard, 1) / outputs_in_all
            mean = tl.sum(weighed, 1) / outputs_in_all
            du = (weighed - mean[:, None] - standard * along[:, None]) * rstd[:, None]
            du = tl.where(inside, du, 0.0)
        elif ACTIVATION != "none":
            sums = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
            du = through_activation(du, sums, ACTIVATION)
        of_bias += du
        if SCALES_DZ or STORES_SHARES:
            scale = reciprocal(mask, mask_row, mask_column, rows, is_row, MODALITIES, HAS_MASK)
            if STORES_SHARES:
                for m in tl.static_range(MODALITIES):
                    counts = counts_of(mask, mask_row, mask_column, rows, is_row, m)
                    mine = is_row & (tl.program_id(1) == 0)
                    tl.store(shares + m * rows_in_all.to(tl.int64) + rows, counts * scale, mask=mine)
            else:
                du *= scale[:, None]
        if STORES_DZ:
            tl.store(dz + at, du.to(dz.dtype.element_ty), mask=inside)

    parts_at = parts + program.to(tl.int64) * outputs_in_all + outputs
    size = tl.num_programs(0).to(tl.int64) * outputs_in_all
    if SUMS_BIAS:
        tl.store(parts_at, tl.sum(of_bias, 0), mask=is_output)
        parts_at += size
    if SUMS_NORM_WEIGHT:
        tl.store(parts_at, tl.sum(of_norm_weight, 0), mask=is_output)
        parts_at += size
    if SUMS_NORM_BIAS:
        tl.store(parts_at, tl.sum(of_norm_bias, 0), mask=is_output)


@triton.jit(do_not_specialize=["count"])
def fold(parts, wholes, count, width, WHOLES: tl.constexpr, BLOCK_PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """Each of `wholes` [width] is the sum of its `count` parts, in a fixed order. Parts are [WHOLES, count, width]."""
    columns = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_column = columns < width
    for n in tl.static_range(WHOLES):
        if tl.program_id(1) == n:
            sums = tl.zeros((BLOCK_PARTS, BLOCK), dtype=tl.float32)
            for start in range(0, count, BLOCK_PARTS):
                numbers = start + tl.arange(0, BLOCK_PARTS)
                at = parts + (n * count + numbers)[:, None].to(tl.int64) * width + columns[None, :]
                sums += tl.load(at, mask=(numbers < count)[:, None] & is_column[None, :], other=0.0)
            whole = wholes[n]
            tl.store(whole + columns, tl.sum(sums, 0).to(whole.dtype.element_ty), mask=is_column)

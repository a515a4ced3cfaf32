"""The Triton kernels of the masked projection. Knows no tensors: `launches` passes pointers, strides and sizes.

`rows` are samples, `inputs` the columns of a modality, `outputs` the columns of the result. A mask comes as numbers:
0 is absent. It is WEIGHTED if its other numbers count, and only selects if they do not. Row strides are taken in 64 bit.
"""

import triton
import triton.language as tl


@triton.jit
def _activated(u, ACTIVATION: tl.constexpr):
    # By selection and not by tl.maximum, which drops NaN.
    if ACTIVATION == "relu":
        u = tl.where(u < 0, 0.0, u)
    elif ACTIVATION == "gelu":
        u = 0.5 * u * (1.0 + tl.erf(u * 0.7071067811865476))
    elif ACTIVATION == "silu":
        u = u * tl.sigmoid(u)
    return u


@triton.jit
def _through_activation(du, u, ACTIVATION: tl.constexpr):
    """The gradient of `u`, given that of the activation of `u`."""
    if ACTIVATION == "relu":
        du = tl.where(u <= 0, 0.0, du)
    elif ACTIVATION == "gelu":
        density = 0.3989422804014327 * tl.exp(-0.5 * u * u)
        du = du * (0.5 * (1.0 + tl.erf(u * 0.7071067811865476)) + u * density)
    elif ACTIVATION == "silu":
        slope = tl.sigmoid(u)
        du = du * slope * (1.0 + u * (1.0 - slope))
    return du


@triton.jit
def _counts(mask, row_stride, column_stride, rows, inside, m):
    """What modality `m` of these rows counts for, before any division; 0 outside."""
    at = mask + rows.to(tl.int64) * row_stride + m * column_stride
    return tl.load(at, mask=inside, other=0).to(tl.float32)


@triton.jit
def _reciprocal(
    mask, row_stride, column_stride, rows, inside, MODALITIES: tl.constexpr, HAS_MASK: tl.constexpr
):
    """1 over what the modalities of each row count for together; 0 for a row without any."""
    total = tl.where(inside, 0.0, 0.0)
    if HAS_MASK:
        for m in tl.static_range(MODALITIES):
            total += _counts(mask, row_stride, column_stride, rows, inside, m)
    else:
        total += MODALITIES
    return tl.where(total == 0, 0.0, 1.0 / tl.where(total == 0, 1.0, total))


@triton.jit
def _grouped(tile, row_tiles, column_tiles, GROUP: tl.constexpr):
    """The place of the tile of this number: neighbours share GROUP row tiles, so that these stay in the L2 cache."""
    together = GROUP * column_tiles
    first = (tile // together) * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    inside = tile % together
    return first + inside % height, inside // height


@triton.jit
def _products(
    sums,
    x,
    x_row,
    x_column,
    weight,
    weight_row,
    weight_column,
    rows,
    present,
    outputs,
    is_output,
    width,
    first,
    last,
    BLOCK_INPUTS: tl.constexpr,
):
    """`sums` + x @ weight.T over the tiles `first` to `last` of the inputs."""
    inputs = tl.arange(0, BLOCK_INPUTS)
    x_at = x + rows[:, None].to(tl.int64) * x_row + inputs[None, :] * x_column
    weight_at = weight + outputs[None, :].to(tl.int64) * weight_row + inputs[:, None] * weight_column
    for tile in range(first, last):
        start = tile * BLOCK_INPUTS
        is_input = start + inputs < width
        skip = start.to(tl.int64)
        some_x = tl.load(x_at + skip * x_column, mask=present[:, None] & is_input[None, :], other=0.0)
        some_weight = tl.load(
            weight_at + skip * weight_column, mask=is_input[:, None] & is_output[None, :], other=0.0
        )
        sums = tl.dot(some_x, some_weight, sums)
    return sums


@triton.jit
def _products_of_all(
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
    first,
    last,
    MODALITIES: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
):
    """`sums` + the products of the tiles `first` to `last`, counted through all modalities, in one loop.

    Loads run ahead over the ends of the modalities, at which a loop of each would wait. The xs' columns lie side by side.
    """
    inputs = tl.arange(0, BLOCK_INPUTS)
    weight_at = weight + outputs[None, :].to(tl.int64) * weight_row + inputs[:, None] * weight_column
    # Bit m of a row: whether it has modality m.
    has = tl.where(is_row, -1, 0)
    if HAS_MASK:
        has = tl.where(is_row, 0, 0)
        for m in tl.static_range(MODALITIES):
            there = _counts(mask, mask_row, mask_column, rows, is_row, m) != 0
            has |= tl.where(there, 1 << m, 0)
    for tile in range(first, last):
        x, x_row, width = xs[0], x_rows[0], widths[0]
        which, passed_tiles, passed_inputs = 0, 0, 0
        next_tiles, next_inputs = tl.cdiv(widths[0], BLOCK_INPUTS), widths[0]
        for m in tl.static_range(1, MODALITIES):
            here = tile >= next_tiles
            x = tl.where(here, xs[m], x)
            x_row = tl.where(here, x_rows[m], x_row)
            width = tl.where(here, widths[m], width)
            passed_tiles = tl.where(here, next_tiles, passed_tiles)
            passed_inputs = tl.where(here, next_inputs, passed_inputs)
            which = tl.where(here, m, which)
            next_tiles += tl.cdiv(widths[m], BLOCK_INPUTS)
            next_inputs += widths[m]
        start = (tile - passed_tiles) * BLOCK_INPUTS
        present = ((has >> which) & 1) != 0
        is_input = start + inputs < width
        x_at = x + rows[:, None].to(tl.int64) * x_row + (start + inputs)[None, :]
        some_x = tl.load(x_at, mask=present[:, None] & is_input[None, :], other=0.0)
        skip = (passed_inputs + start).to(tl.int64)
        some_weight = tl.load(
            weight_at + skip * weight_column, mask=is_input[:, None] & is_output[None, :], other=0.0
        )
        sums = tl.dot(some_x, some_weight, sums)
    return sums


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
    row_tile, output_tile = _grouped(
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
        sums = _products_of_all(
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
                counts = _counts(mask, mask_row, mask_column, rows, is_row, m)
                present = counts != 0
                # No row of this tile has the modality: nothing of it is read, neither x nor weight.
                last = tl.where(tl.max(present.to(tl.int32), 0) > 0, last, first)
            if WEIGHTED:
                # The sums stand in units of what the last modality counted for: one accumulator does for all weights, and
                # weights of 0 and 1 change no bit. A weight far below the last one is raised to where it is still nothing.
                own = tl.where(present, tl.maximum(counts, unit * 1e-12), unit)
                sums *= tl.where(present, unit / tl.where(present, own, 1.0), 1.0)[:, None]
                unit = own
            sums = _products(
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
            scale = _reciprocal(mask, mask_row, mask_column, rows, is_row, MODALITIES, HAS_MASK)
            sums *= scale[:, None]
        if HAS_BIAS:
            sums += tl.load(bias + outputs, mask=is_output, other=0.0).to(tl.float32)[None, :]
    if STORES_Z:
        tl.store(z + at, sums.to(z.dtype.element_ty), mask=inside)
    if STORES_Y:
        tl.store(y + at, _activated(sums, ACTIVATION).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _standardised(z, is_output, outputs_in_all, eps):
    """Each row with mean 0 and variance 1, 0 outside, and the 1/deviation of each row. In two passes: no cancelling."""
    mean = tl.sum(z, 1) / outputs_in_all
    centred = tl.where(is_output[None, :], z - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 1) / outputs_in_all + eps)
    return centred * rstd[:, None], rstd


@triton.jit
def _vector(vector, outputs, is_output, THERE: tl.constexpr):
    """As float32 [1, outputs]; zeros if it is not there."""
    if THERE:
        return tl.load(vector + outputs, mask=is_output, other=0.0).to(tl.float32)[None, :]
    else:
        return tl.where(is_output, 0.0, 0.0)[None, :]


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
        scale = _reciprocal(mask, mask_row, mask_column, rows, is_row, MODALITIES, HAS_MASK)
        total *= scale[:, None]
    if HAS_BIAS:
        total += tl.load(bias + outputs, mask=is_output, other=0.0).to(tl.float32)[None, :]
    if STORES_Z:
        tl.store(z + at, total.to(z.dtype.element_ty), mask=inside)
    if HAS_NORM:
        standard, _ = _standardised(total, is_output, outputs_in_all, eps)
        total = standard * _vector(norm_weight, outputs, is_output, True)
        total += _vector(norm_bias, outputs, is_output, HAS_NORM_BIAS)
    tl.store(y + at, _activated(total, ACTIVATION).to(y.dtype.element_ty), mask=inside)


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

    slope = _vector(norm_weight, outputs, is_output, HAS_NORM)
    shift = _vector(norm_bias, outputs, is_output, HAS_NORM_BIAS)
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
            standard, rstd = _standardised(sums, is_output, outputs_in_all, eps)
            du = _through_activation(du, standard * slope + shift, ACTIVATION)
            of_norm_weight += du * standard
            of_norm_bias += du
            weighed = du * slope
            along = tl.sum(weighed * standard, 1) / outputs_in_all
            mean = tl.sum(weighed, 1) / outputs_in_all
            du = (weighed - mean[:, None] - standard * along[:, None]) * rstd[:, None]
            du = tl.where(inside, du, 0.0)
        elif ACTIVATION != "none":
            sums = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
            du = _through_activation(du, sums, ACTIVATION)
        of_bias += du
        if SCALES_DZ or STORES_SHARES:
            scale = _reciprocal(mask, mask_row, mask_column, rows, is_row, MODALITIES, HAS_MASK)
            if STORES_SHARES:
                for m in tl.static_range(MODALITIES):
                    counts = _counts(mask, mask_row, mask_column, rows, is_row, m)
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


@triton.jit
def _input_tile(
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
    row_tile, input_tile = _grouped(
        tile, tl.cdiv(rows_in_all, BLOCK_ROWS), tl.cdiv(width, BLOCK_INPUTS), GROUP
    )
    rows = row_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inputs = input_tile * BLOCK_INPUTS + tl.arange(0, BLOCK_INPUTS)
    outputs = tl.arange(0, BLOCK_OUTPUTS)
    is_row, is_input = rows < rows_in_all, inputs < width
    tiles = tl.cdiv(outputs_in_all, BLOCK_OUTPUTS)
    if HAS_SHARES:
        counts = _counts(share, share_row, 0, rows, is_row, 0)
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
            _input_tile(
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


@triton.jit
def _weight_tile(
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
    output_tile, input_tile = _grouped(
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
            counts = _counts(share, share_row, 0, rows, present, 0)
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
            _weight_tile(
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
            _weight_tile(
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
            _input_tile(
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
    counts = _counts(share, share_row, 0, rows, is_row, 0)
    at = source + rows[:, None].to(tl.int64) * source_row + columns[None, :].to(tl.int64) * source_column
    some = tl.load(at, mask=(counts != 0)[:, None] & is_column[None, :], other=0.0)
    if WEIGHTED:
        some = (some.to(tl.float32) * counts[:, None]).to(weighed.dtype.element_ty)
    to = weighed + rows[:, None].to(tl.int64) * weighed_row + columns[None, :]
    tl.store(to, some, mask=is_row[:, None] & is_column[None, :])

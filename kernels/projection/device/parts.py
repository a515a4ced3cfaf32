"""What the kernels of the projection have in common: masks, norms, activations, and the products in a tile."""

import triton
import triton.language as tl


@triton.jit
def activated(u, ACTIVATION: tl.constexpr):
    # By selection and not by tl.maximum, which drops NaN.
    if ACTIVATION == "relu":
        u = tl.where(u < 0, 0.0, u)
    elif ACTIVATION == "gelu":
        u = 0.5 * u * (1.0 + tl.erf(u * 0.7071067811865476))
    elif ACTIVATION == "silu":
        u = u * tl.sigmoid(u)
    return u


@triton.jit
def through_activation(du, u, ACTIVATION: tl.constexpr):
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
def counts_of(mask, row_stride, column_stride, rows, inside, m):
    """What modality `m` of these rows counts for, before any division; 0 outside."""
    at = mask + rows.to(tl.int64) * row_stride + m * column_stride
    return tl.load(at, mask=inside, other=0).to(tl.float32)


@triton.jit
def reciprocal(
    mask, row_stride, column_stride, rows, inside, MODALITIES: tl.constexpr, HAS_MASK: tl.constexpr
):
    """1 over what the modalities of each row count for together; 0 for a row without any."""
    total = tl.where(inside, 0.0, 0.0)
    if HAS_MASK:
        for m in tl.static_range(MODALITIES):
            total += counts_of(mask, row_stride, column_stride, rows, inside, m)
    else:
        total += MODALITIES
    return tl.where(total == 0, 0.0, 1.0 / tl.where(total == 0, 1.0, total))


@triton.jit
def grouped(tile, row_tiles, column_tiles, GROUP: tl.constexpr):
    """The place of the tile of this number: neighbours share GROUP row tiles, so that these stay in the L2 cache."""
    together = GROUP * column_tiles
    first = (tile // together) * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    inside = tile % together
    return first + inside % height, inside // height


@triton.jit
def products(
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
def products_of_all(
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
            there = counts_of(mask, mask_row, mask_column, rows, is_row, m) != 0
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


@triton.jit
def standardised(z, is_output, outputs_in_all, eps):
    """Each row with mean 0 and variance 1, 0 outside, and the 1/deviation of each row. In two passes: no cancelling."""
    mean = tl.sum(z, 1) / outputs_in_all
    centred = tl.where(is_output[None, :], z - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 1) / outputs_in_all + eps)
    return centred * rstd[:, None], rstd


@triton.jit
def vector(vector, outputs, is_output, THERE: tl.constexpr):
    """As float32 [1, outputs]; zeros if it is not there."""
    if THERE:
        return tl.load(vector + outputs, mask=is_output, other=0.0).to(tl.float32)[None, :]
    else:
        return tl.where(is_output, 0.0, 0.0)[None, :]

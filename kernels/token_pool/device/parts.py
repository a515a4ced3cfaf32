"""What token pooling's kernels have in common: a row's tokens, vectors in tiles, LayerNorm, and a row's output."""

# Triton reads these functions, and of tuples it knows no more than `+`; a conditional expression it may not decide.
# ruff: noqa: RUF005, SIM108
# mypy: disable-error-code="assignment"

import triton
import triton.language as tl

from kernels.token_pool import reference

SHORTEST = tl.constexpr(reference.SHORTEST)


@triton.jit
def live_span(Lengths, Bounds, row, most):
    """Where a row's tokens begin and how many they are. `most` are the tokens of a row, or of all rows if packed."""
    if Bounds is not None:
        start = tl.minimum(tl.maximum(tl.load(Bounds + row).to(tl.int64), 0), most)
        end = tl.minimum(tl.maximum(tl.load(Bounds + row + 1).to(tl.int64), 0), most)
        count = tl.maximum(end - start, 0)
    else:
        start = row * 0
        if Lengths is not None:
            count = tl.minimum(tl.maximum(tl.load(Lengths + row).to(tl.int64), 0), most)
        else:
            count = start + most
    return start, count.to(tl.int32)


@triton.jit
def share_of(count, splits, TOKENS: tl.constexpr):
    """How many of `count` tokens each split takes: whole tiles, so that only the last has a part of one."""
    return tl.cdiv(tl.cdiv(count, splits), TOKENS) * TOKENS


@triton.jit
def vector(Vector, stride, is_there, WIDTH: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr):
    """A vector in float32, zeros if it is not there and behind its end."""
    tiles = ()
    for chunk in tl.static_range(CHUNKS):
        column = chunk * W + tl.arange(0, W)
        value = tl.load(Vector + column * stride, mask=(column < WIDTH) & is_there, other=0.0)
        tiles = tiles + (value.to(tl.float32),)
    return tiles


@triton.jit
def store_vector(Vector, tiles, is_wanted, WIDTH: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr):
    for chunk in tl.static_range(CHUNKS):
        column = chunk * W + tl.arange(0, W)
        value = tiles[chunk].to(Vector.dtype.element_ty)
        tl.store(Vector + column, value, mask=(column < WIDTH) & is_wanted)


@triton.jit
def tokens_at(X, t, is_live, s_token, s_column, WIDTH: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr):
    """Tiles [tokens, W] in float32; what is dead is not loaded, and zeros."""
    at = X + t.to(tl.int64) * s_token
    tiles = ()
    for chunk in tl.static_range(CHUNKS):
        column = chunk * W + tl.arange(0, W)
        if chunk * W + W <= WIDTH:
            mask = is_live[:, None]
        else:
            mask = is_live[:, None] & (column < WIDTH)[None, :]
        x = tl.load(at[:, None] + (column * s_column)[None, :], mask=mask, other=0.0)
        tiles = tiles + (x.to(tl.float32),)
    return tiles


@triton.jit
def standardise(xs, eps, WIDTH: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr):
    """Each token with mean 0 and variance 1, and the 1/deviation that it was multiplied by."""
    total = xs[0]
    for chunk in tl.static_range(1, CHUNKS):
        total += xs[chunk]
    mean = tl.sum(total, 1) / WIDTH
    squares = tl.zeros_like(total)
    centred = ()
    for chunk in tl.static_range(CHUNKS):
        apart = xs[chunk] - mean[:, None]
        if chunk * W + W > WIDTH:
            apart = tl.where((chunk * W + tl.arange(0, W) < WIDTH)[None, :], apart, 0.0)
        squares += apart * apart
        centred = centred + (apart,)
    # In two passes: E[x^2] - E[x]^2 would cancel.
    rstd = 1.0 / tl.sqrt(tl.sum(squares, 1) / WIDTH + eps)
    standard = ()
    for chunk in tl.static_range(CHUNKS):
        standard = standard + (centred[chunk] * rstd[:, None],)
    return standard, rstd


@triton.jit
def through_norm(
    pooled, is_live, NormWeight, NormBias, WIDTH: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr
):
    """The norm's affine part; a row without tokens stays zero."""
    if NormWeight is None:
        ys = pooled
    else:
        weight = vector(NormWeight, 1, is_live, WIDTH, W, CHUNKS)
        ys = ()
        for chunk in tl.static_range(CHUNKS):
            ys = ys + (pooled[chunk] * weight[chunk],)
        if NormBias is not None:
            bias = vector(NormBias, 1, is_live, WIDTH, W, CHUNKS)
            moved = ()
            for chunk in tl.static_range(CHUNKS):
                moved = moved + (ys[chunk] + bias[chunk],)
            ys = moved
    return ys


@triton.jit
def dot(left, right, CHUNKS: tl.constexpr):
    products = left[0] * right[0]
    for chunk in tl.static_range(1, CHUNKS):
        products += left[chunk] * right[chunk]
    return tl.sum(products, 0)


@triton.jit
def finish(
    pooled,
    count,
    row,
    NormWeight,
    NormBias,
    Y,
    Pooled,
    WIDTH: tl.constexpr,
    W: tl.constexpr,
    CHUNKS: tl.constexpr,
    L2: tl.constexpr,
):
    """From a row's pooled vector to its output."""
    store_vector(Pooled + row * WIDTH, pooled, True, WIDTH, W, CHUNKS)
    ys = through_norm(pooled, count > 0, NormWeight, NormBias, WIDTH, W, CHUNKS)
    if L2:
        length = tl.sqrt(dot(ys, ys, CHUNKS))
        # A selection and no maximum: that would hide NaN.
        length = tl.where(length < SHORTEST, SHORTEST, length)
        unit = ()
        for chunk in tl.static_range(CHUNKS):
            unit = unit + (ys[chunk] / length,)
        ys = unit
    store_vector(Y + row * WIDTH, ys, True, WIDTH, W, CHUNKS)

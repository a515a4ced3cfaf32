"""The tokens' gradients, and on the way the rows' before they were given length 1."""

# Triton reads these functions, and of tuples it knows no more than `+`; a conditional expression it may not decide.
# ruff: noqa: RUF005, SIM108
# mypy: disable-error-code="assignment, misc"

import triton
import triton.language as tl

from kernels.token_pool.device.parts import (
    SHORTEST,
    dot,
    live_span,
    share_of,
    standardise,
    store_vector,
    through_norm,
    tokens_at,
    vector,
)


@triton.jit
def row_gradient(
    Grad,
    s_grad_column,
    Pooled,
    NormWeight,
    NormBias,
    is_live,
    L2: tl.constexpr,
    WIDTH: tl.constexpr,
    W: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """The gradient of a row before it was given length 1; zeros for a row without tokens."""
    dys = vector(Grad, s_grad_column, is_live, WIDTH, W, CHUNKS)
    if L2:
        pooled = vector(Pooled, 1, is_live, WIDTH, W, CHUNKS)
        ys = through_norm(pooled, is_live, NormWeight, NormBias, WIDTH, W, CHUNKS)
        length = tl.sqrt(dot(ys, ys, CHUNKS))
        divisor = tl.where(length < SHORTEST, SHORTEST, length)
        along = tl.where(length < SHORTEST, 0.0, dot(dys, ys, CHUNKS) / divisor)
        before = ()
        for chunk in tl.static_range(CHUNKS):
            before = before + ((dys[chunk] - ys[chunk] / divisor * along) / divisor,)
        dys = before
    return dys


@triton.jit
def store_zeros(
    DX,
    low,
    high,
    split,
    splits,
    WIDTH: tl.constexpr,
    W: tl.constexpr,
    CHUNKS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Into this split's share of the tokens from `low` to `high`."""
    share = share_of(high - low, splits, TOKENS)
    begin = low + split * share
    end = tl.minimum(begin + share, high)
    for first in tl.range(begin, end, TOKENS):
        t = first + tl.arange(0, TOKENS)
        for chunk in tl.static_range(CHUNKS):
            column = chunk * W + tl.arange(0, W)
            at = DX + (t.to(tl.int64) * WIDTH)[:, None] + column[None, :]
            zeros = tl.zeros([TOKENS, W], DX.dtype.element_ty)
            tl.store(at, zeros, mask=(t < end)[:, None] & (column < WIDTH)[None, :])


@triton.jit
def tokens_gradient(
    Grad,
    s_grad_row,
    s_grad_column,
    Pooled,
    Places,
    X,
    Lengths,
    Bounds,
    NormWeight,
    NormBias,
    DX,
    DY,
    most,
    s_row,
    s_token,
    s_column,
    eps,
    splits,
    MODE: tl.constexpr,
    L2: tl.constexpr,
    WIDTH: tl.constexpr,
    W: tl.constexpr,
    CHUNKS: tl.constexpr,
    TOKENS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One split of one row: every token of DX, dead ones too, if it is given; and the row's DY if that is."""
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    start, count = live_span(Lengths, Bounds, row, most)
    dys = row_gradient(
        Grad + row * s_grad_row,
        s_grad_column,
        Pooled + row * WIDTH,
        NormWeight,
        NormBias,
        count > 0,
        L2,
        WIDTH,
        W,
        CHUNKS,
    )
    if DY is not None:
        store_vector(DY + row * WIDTH, dys, split == 0, WIDTH, W, CHUNKS)

    if DX is not None:
        gs = dys
        if NormWeight is not None:
            gs = ()
            weight = vector(NormWeight, 1, True, WIDTH, W, CHUNKS)
            for chunk in tl.static_range(CHUNKS):
                gs = gs + (dys[chunk] * weight[chunk],)
        used = count
        if MODE == "cls":
            used = tl.minimum(count, 1)
        if MODE == "mean":
            shares = ()
            for chunk in tl.static_range(CHUNKS):
                shares = shares + (gs[chunk] / tl.maximum(count, 1).to(tl.float32),)
            gs = shares
        total = gs[0]
        for chunk in tl.static_range(1, CHUNKS):
            total += gs[chunk]
        mean = tl.sum(total, 0) / WIDTH
        places = ()
        if MODE == "max":
            for chunk in tl.static_range(CHUNKS):
                column = chunk * W + tl.arange(0, W)
                place = tl.load(Places + row * WIDTH + column, mask=column < WIDTH, other=0)
                places = places + ((place - start).to(tl.int32),)

        share = share_of(used, splits, TOKENS)
        low = split * share
        high = tl.minimum(low + share, used)
        X += row * s_row + start * s_token
        if Bounds is not None:
            Out = DX + start * WIDTH
        else:
            Out = DX + row * most * WIDTH
        for first in tl.range(low, high, TOKENS, num_stages=STAGES):
            t = first + tl.arange(0, TOKENS)
            dxs = ()
            for chunk in tl.static_range(CHUNKS):
                g = gs[chunk][None, :]
                if MODE == "max":
                    dxs = dxs + (tl.where(places[chunk][None, :] == t[:, None], g, 0.0),)
                else:
                    dxs = dxs + (g + tl.zeros([TOKENS, W], tl.float32),)
            if NormWeight is not None:
                xs = tokens_at(X, t, t < high, s_token, s_column, WIDTH, W, CHUNKS)
                standard, rstd = standardise(xs, eps, WIDTH, W, CHUNKS)
                products = dxs[0] * standard[0]
                for chunk in tl.static_range(1, CHUNKS):
                    products += dxs[chunk] * standard[chunk]
                along = tl.sum(products, 1) / WIDTH
                means = mean + tl.zeros([TOKENS], tl.float32)
                if MODE == "max":
                    # Asking for NaN, whose token gets NaN anyway, keeps this sum in the lanes that the token lies in.
                    picked = tl.where(standard[0] == standard[0], dxs[0], 0.0)
                    for chunk in tl.static_range(1, CHUNKS):
                        picked += tl.where(standard[chunk] == standard[chunk], dxs[chunk], 0.0)
                    means = tl.sum(picked, 1) / WIDTH
                through = ()
                for chunk in tl.static_range(CHUNKS):
                    apart = dxs[chunk] - means[:, None] - standard[chunk] * along[:, None]
                    through = through + (apart * rstd[:, None],)
                dxs = through
            for chunk in tl.static_range(CHUNKS):
                column = chunk * W + tl.arange(0, W)
                if chunk * W + W <= WIDTH:
                    mask = (t < high)[:, None]
                else:
                    mask = (t < high)[:, None] & (column < WIDTH)[None, :]
                at = Out + (t.to(tl.int64) * WIDTH)[:, None] + column[None, :]
                tl.store(at, dxs[chunk].to(DX.dtype.element_ty), mask=mask)

        if Bounds is None:
            store_zeros(Out, used, most, split, splits, WIDTH, W, CHUNKS, TOKENS)
        else:
            rows = tl.num_programs(0)
            if MODE == "cls":
                store_zeros(Out, used, count, split, splits, WIDTH, W, CHUNKS, TOKENS)
            before = tl.where(row == 0, start, 0)
            store_zeros(DX, before * 0, before, split, splits, WIDTH, W, CHUNKS, TOKENS)
            end = tl.minimum(tl.maximum(tl.load(Bounds + rows).to(tl.int64), 0), most)
            behind = tl.where(row == rows - 1, end, most)
            store_zeros(DX, behind, most, split, splits, WIDTH, W, CHUNKS, TOKENS)

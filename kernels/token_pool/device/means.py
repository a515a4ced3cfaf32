"""The mean of each row's tokens, or the first of them."""

# Triton reads these functions, and of tuples it knows no more than `+`.
# ruff: noqa: RUF005
# mypy: disable-error-code="assignment"

import triton
import triton.language as tl

from kernels.token_pool.device.parts import finish, live_span, share_of, standardise, store_vector, tokens_at


@triton.jit
def mean_of_tokens(
    X,
    Lengths,
    Bounds,
    NormWeight,
    NormBias,
    Y,
    Pooled,
    Places,
    Sums,
    most,
    s_row,
    s_token,
    s_column,
    eps,
    splits,
    NORM: tl.constexpr,
    L2: tl.constexpr,
    WIDTH: tl.constexpr,
    W: tl.constexpr,
    CHUNKS: tl.constexpr,
    TOKENS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One split of one row: its share of the sum into Sums, or the output if there is one split only.

    With Places it takes the first token alone: that is the mode `cls`.
    """
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    start, count = live_span(Lengths, Bounds, row, most)
    used = count
    if Places is not None:
        used = tl.minimum(count, 1)
    share = share_of(used, splits, TOKENS)
    low = split * share
    high = tl.minimum(low + share, used)
    X += row * s_row + start * s_token

    sums = ()
    for _chunk in tl.static_range(CHUNKS):
        sums = sums + (tl.zeros([TOKENS, W], tl.float32),)
    for first in tl.range(low, high, TOKENS, num_stages=STAGES):
        t = first + tl.arange(0, TOKENS)
        xs = tokens_at(X, t, t < high, s_token, s_column, WIDTH, W, CHUNKS)
        if NORM:
            xs, _ = standardise(xs, eps, WIDTH, W, CHUNKS)
        more = ()
        for chunk in tl.static_range(CHUNKS):
            more = more + (sums[chunk] + tl.where((t < high)[:, None], xs[chunk], 0.0),)
        sums = more
    whole = ()
    for chunk in tl.static_range(CHUNKS):
        whole = whole + (tl.sum(sums[chunk], 0),)

    if Sums is not None:
        store_vector(Sums + (row * splits + split) * WIDTH, whole, low < high, WIDTH, W, CHUNKS)
    else:
        pooled = ()
        for chunk in tl.static_range(CHUNKS):
            pooled = pooled + (whole[chunk] / tl.maximum(used, 1).to(tl.float32),)
        finish(pooled, count, row, NormWeight, NormBias, Y, Pooled, WIDTH, W, CHUNKS, L2)
    if Places is not None:
        last = tl.maximum(start * 0 + most - 1, 0)
        for chunk in tl.static_range(CHUNKS):
            column = chunk * W + tl.arange(0, W)
            place = tl.minimum(start, last) + tl.zeros([W], tl.int64)
            tl.store(Places + row * WIDTH + column, place, mask=column < WIDTH)


@triton.jit
def join_means(
    Sums,
    Lengths,
    Bounds,
    NormWeight,
    NormBias,
    Y,
    Pooled,
    most,
    splits,
    L2: tl.constexpr,
    WIDTH: tl.constexpr,
    W: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEP: tl.constexpr,
    STEPS: tl.constexpr,
    SHARE: tl.constexpr,
):
    """The splits of a row in a fixed order, and from their sum to the output. SHARE is the other kernel's TOKENS."""
    row = tl.program_id(0).to(tl.int64)
    _, count = live_span(Lengths, Bounds, row, most)
    # A split without tokens has written nothing.
    share = share_of(count, splits, SHARE)
    pooled = ()
    for chunk in tl.static_range(CHUNKS):
        column = chunk * W + tl.arange(0, W)
        sums = tl.zeros([STEP, W], tl.float32)
        for step in tl.range(0, STEPS):
            split = step * STEP + tl.arange(0, STEP)
            mask = ((split < splits) & (split * share < count))[:, None] & (column < WIDTH)[None, :]
            at = Sums + (row * splits + split)[:, None] * WIDTH + column[None, :]
            sums += tl.load(at, mask=mask, other=0.0)
        pooled = pooled + (tl.sum(sums, 0) / tl.maximum(count, 1).to(tl.float32),)
    finish(pooled, count, row, NormWeight, NormBias, Y, Pooled, WIDTH, W, CHUNKS, L2)

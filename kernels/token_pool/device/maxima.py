"""The largest of each row's tokens in each column, and where it is."""

# Triton reads these functions, and of tuples it knows no more than `+`; a conditional expression it may not decide.
# ruff: noqa: RUF005, SIM108
# mypy: disable-error-code="assignment"

import triton
import triton.language as tl

from kernels.token_pool.device.parts import (
    finish,
    live_span,
    share_of,
    standardise,
    store_vector,
    tokens_at,
    vector,
)

#: The order of what has no token: below that of minus infinity.
NOTHING = tl.constexpr(-(1 << 31))
NAN = tl.constexpr((1 << 31) - 1)
#: A place beyond every token.
NOWHERE = tl.constexpr((1 << 31) - 1)


@triton.jit
def order_of(value):
    """Integers that stand in the order of the numbers; NaN is larger than all, and -0 is 0."""
    bits = (value + 0.0).to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return tl.where(value != value, NAN, order)


@triton.jit
def largest(orders, places, values):
    """Along the first axis: the largest order, the first place of it, and the value there."""
    order = tl.max(orders, 0)
    place = tl.min(tl.where(orders == order[None, :], places, NOWHERE), 0)
    value = tl.sum(tl.where(places == place[None, :], values, 0.0), 0)
    return order, place, value


@triton.jit
def store_places(
    Places, places, count, start, most, is_packed, WIDTH: tl.constexpr, W: tl.constexpr, CHUNKS: tl.constexpr
):
    """As the tokens' own axis counts them. A row without tokens has some place that is within it."""
    last = tl.maximum(start * 0 + most - 1, 0)
    for chunk in tl.static_range(CHUNKS):
        column = chunk * W + tl.arange(0, W)
        place = tl.where(count > 0, start + places[chunk], tl.where(is_packed, last, 0))
        tl.store(Places + column, place, mask=column < WIDTH)


@triton.jit
def max_of_tokens(
    X,
    Lengths,
    Bounds,
    NormWeight,
    NormBias,
    Y,
    Pooled,
    Places,
    PartOrders,
    PartPlaces,
    PartValues,
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
    """One split of one row: its candidates into the parts, or the output if there is one split only."""
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    start, count = live_span(Lengths, Bounds, row, most)
    share = share_of(count, splits, TOKENS)
    low = split * share
    high = tl.minimum(low + share, count)
    X += row * s_row + start * s_token

    orders = ()
    places = ()
    values = ()
    for _chunk in tl.static_range(CHUNKS):
        orders = orders + (tl.full([TOKENS, W], NOTHING, tl.int32),)
        places = places + (tl.full([TOKENS, W], NOWHERE, tl.int32),)
        values = values + (tl.zeros([TOKENS, W], tl.float32),)
    if NORM:
        weight = vector(NormWeight, 1, True, WIDTH, W, CHUNKS)
    for first in tl.range(low, high, TOKENS, num_stages=STAGES):
        t = first + tl.arange(0, TOKENS)
        xs = tokens_at(X, t, t < high, s_token, s_column, WIDTH, W, CHUNKS)
        if NORM:
            xs, _ = standardise(xs, eps, WIDTH, W, CHUNKS)
        new_orders = ()
        new_places = ()
        new_values = ()
        for chunk in tl.static_range(CHUNKS):
            if NORM:
                order = order_of(xs[chunk] * weight[chunk][None, :])
            else:
                order = order_of(xs[chunk])
            # Of equal ones the earlier stays.
            is_larger = (order > orders[chunk]) & (t < high)[:, None]
            new_orders = new_orders + (tl.where(is_larger, order, orders[chunk]),)
            new_places = new_places + (tl.where(is_larger, t[:, None], places[chunk]),)
            new_values = new_values + (tl.where(is_larger, xs[chunk], values[chunk]),)
        orders = new_orders
        places = new_places
        values = new_values
    top_orders = ()
    top_places = ()
    pooled = ()
    for chunk in tl.static_range(CHUNKS):
        order, place, value = largest(orders[chunk], places[chunk], values[chunk])
        top_orders = top_orders + (order,)
        top_places = top_places + (place,)
        pooled = pooled + (value,)

    if PartOrders is not None:
        part = (row * splits + split) * WIDTH
        store_vector(PartOrders + part, top_orders, low < high, WIDTH, W, CHUNKS)
        store_vector(PartPlaces + part, top_places, low < high, WIDTH, W, CHUNKS)
        store_vector(PartValues + part, pooled, low < high, WIDTH, W, CHUNKS)
    else:
        is_packed = Bounds is not None
        store_places(Places + row * WIDTH, top_places, count, start, most, is_packed, WIDTH, W, CHUNKS)
        finish(pooled, count, row, NormWeight, NormBias, Y, Pooled, WIDTH, W, CHUNKS, L2)


@triton.jit
def join_maxima(
    PartOrders,
    PartPlaces,
    PartValues,
    Lengths,
    Bounds,
    NormWeight,
    NormBias,
    Y,
    Pooled,
    Places,
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
    """The largest of all splits of a row, and the output."""
    row = tl.program_id(0).to(tl.int64)
    start, count = live_span(Lengths, Bounds, row, most)
    share = share_of(count, splits, SHARE)
    top_places = ()
    pooled = ()
    for chunk in tl.static_range(CHUNKS):
        column = chunk * W + tl.arange(0, W)
        orders = tl.full([STEP, W], NOTHING, tl.int32)
        places = tl.full([STEP, W], NOWHERE, tl.int32)
        values = tl.zeros([STEP, W], tl.float32)
        for step in tl.range(0, STEPS):
            split = step * STEP + tl.arange(0, STEP)
            mask = ((split < splits) & (split * share < count))[:, None] & (column < WIDTH)[None, :]
            at = (row * splits + split)[:, None] * WIDTH + column[None, :]
            order = tl.load(PartOrders + at, mask=mask, other=NOTHING)
            # Of equal ones the earlier stays.
            is_larger = order > orders
            orders = tl.where(is_larger, order, orders)
            places = tl.where(is_larger, tl.load(PartPlaces + at, mask=mask, other=NOWHERE), places)
            values = tl.where(is_larger, tl.load(PartValues + at, mask=mask, other=0.0), values)
        _, place, value = largest(orders, places, values)
        top_places = top_places + (place,)
        pooled = pooled + (value,)
    is_packed = Bounds is not None
    store_places(Places + row * WIDTH, top_places, count, start, most, is_packed, WIDTH, W, CHUNKS)
    finish(pooled, count, row, NormWeight, NormBias, Y, Pooled, WIDTH, W, CHUNKS, L2)

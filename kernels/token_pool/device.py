"""Token pooling on the device: the functions that Triton compiles. Who launches them, and how, is in `triton.py`.

A vector of WIDTH columns is held as a tuple of CHUNKS tiles of W columns each: 768 columns are three tiles of 256,
where one tile of a power of two would leave a quarter of all lanes idle. Sums over the tokens are kept apart for each
token of a tile and folded once, behind the loop: inside it nothing crosses from warp to warp, as long as a tile's
columns fit in one.
"""

# Triton reads these functions, and of tuples it knows no more than `+`; a conditional expression it may not decide.
# ruff: noqa: RUF005, SIM108
# mypy: disable-error-code="assignment, misc"

import triton
import triton.language as tl

from kernels.token_pool import reference

SHORTEST = tl.constexpr(reference.SHORTEST)
#: The order of what has no token: below that of minus infinity.
NOTHING = tl.constexpr(-(1 << 31))
NAN = tl.constexpr((1 << 31) - 1)
#: A place beyond every token.
NOWHERE = tl.constexpr((1 << 31) - 1)


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


@triton.jit
def norm_gradient(
    DY,
    s_row,
    s_column,
    Pooled,
    Lengths,
    Bounds,
    DWeight,
    DBias,
    rows,
    most,
    share,
    WIDTH: tl.constexpr,
    W: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Of W columns, the sums over one share of the rows: into the gradients, or a row of the parts of them."""
    column = tl.program_id(0) * W + tl.arange(0, W)
    part = tl.program_id(1).to(tl.int64)
    low = part * share
    high = tl.minimum(low + share, rows)
    weight = tl.zeros([ROWS, W], tl.float32)
    bias = tl.zeros([ROWS, W], tl.float32)
    for first in tl.range(low, high, ROWS):
        row = first + tl.arange(0, ROWS)
        is_row = row < high
        if Bounds is not None:
            start = tl.minimum(tl.maximum(tl.load(Bounds + row, mask=is_row, other=0).to(tl.int64), 0), most)
            end = tl.minimum(
                tl.maximum(tl.load(Bounds + row + 1, mask=is_row, other=0).to(tl.int64), 0), most
            )
            is_row = is_row & (end > start)
        else:
            if Lengths is not None:
                is_row = is_row & (tl.load(Lengths + row, mask=is_row, other=0) > 0)
        mask = is_row[:, None] & (column < WIDTH)[None, :]
        dy = tl.load(DY + (row * s_row)[:, None] + (column * s_column)[None, :], mask=mask, other=0.0)
        bias += dy.to(tl.float32)
        if DWeight is not None:
            pooled = tl.load(Pooled + (row * WIDTH)[:, None] + column[None, :], mask=mask, other=0.0)
            weight += dy.to(tl.float32) * pooled
    if DWeight is not None:
        sums = tl.sum(weight, 0).to(DWeight.dtype.element_ty)
        tl.store(DWeight + part * WIDTH + column, sums, mask=column < WIDTH)
    if DBias is not None:
        sums = tl.sum(bias, 0).to(DBias.dtype.element_ty)
        tl.store(DBias + part * WIDTH + column, sums, mask=column < WIDTH)


@triton.jit
def join_norm_gradients(Parts, Out, parts, WIDTH: tl.constexpr, W: tl.constexpr, PARTS: tl.constexpr):
    column = tl.program_id(0) * W + tl.arange(0, W)
    part = tl.arange(0, PARTS)
    mask = (part < parts)[:, None] & (column < WIDTH)[None, :]
    sums = tl.load(Parts + part[:, None] * WIDTH + column[None, :], mask=mask, other=0.0)
    tl.store(Out + column, tl.sum(sums, 0).to(Out.dtype.element_ty), mask=column < WIDTH)

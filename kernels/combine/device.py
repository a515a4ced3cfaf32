"""The kernels that combine modalities. One program takes whole rows: ROWS of them, BLOCK >= width entries each.

Tuples hold one tile a modality, so that each entry is loaded once, however often it is needed.
"""

# mypy: disable-error-code="assignment"

import triton
import triton.language as tl


@triton.jit
def _counts(mask, mask_row, mask_column, row, live, M: tl.constexpr):
    """For each modality where it is present, and what its mask counts it for: [ROWS]."""
    present, counts = (), ()
    for m in tl.static_range(M):
        if mask is None:
            count = live.to(tl.float32)
        else:
            count = tl.load(mask + row * mask_row + m * mask_column, mask=live, other=0).to(tl.float32)
        present += (count != 0.0,)
        counts += (count,)
    return present, counts


@triton.jit
def _raised(gates, gate_modality, inside, present, counts, M: tl.constexpr):
    """The counts, each times exp(its logit - the largest logit of those present). gates: where the first's are."""
    logits, raised = (), ()
    peak = tl.full(inside.shape, float("-inf"), tl.float32)
    for m in tl.static_range(M):
        logit = tl.load(gates + m * gate_modality, mask=present[m] & inside, other=0.0).to(tl.float32)
        peak = tl.maximum(peak, tl.where(present[m], logit, float("-inf")))
        logits += (logit,)
    for m in tl.static_range(M):
        # Of what is absent no exponential is taken: it might overflow.
        above = tl.where(present[m], logits[m] - tl.where(present[m], peak, 0.0), 0.0)
        raised += (tl.where(present[m], counts[m] * tl.exp(above), 0.0),)
    return raised


@triton.jit
def _shared_out(present, counts, M: tl.constexpr):
    """The counts divided by their sum; 0 throughout for a row without any modality."""
    shares, some, total = (), present[0], counts[0]
    for m in tl.static_range(1, M):
        some = some | present[m]
        total += counts[m]
    total = tl.where(some, total, 1.0)
    for m in tl.static_range(M):
        shares += (counts[m] / total,)
    return shares


@triton.jit
def _standing(held, M: tl.constexpr):
    """[ROWS] as [ROWS, 1]."""
    standing = ()
    for m in tl.static_range(M):
        standing += (held[m][:, None],)
    return standing


@triton.jit
def _presence_and_shares(mask, mask_row, mask_column, gates, gate_row, gate_modality, gate_column,
                         row, column, inside, live, M: tl.constexpr, MODE: tl.constexpr):  # fmt: skip
    """For each modality where it is present, [ROWS, 1], and its share: [ROWS, BLOCK] if each entry has its gate.

    row and live are [ROWS]: of a number a row that were read as [ROWS, 1] each thread would load several copies.
    """
    present, shares = _counts(mask, mask_row, mask_column, row, live, M)
    if MODE == "gated":
        shares = _raised(gates + row * gate_row, gate_modality, live, present, shares, M)
    if MODE == "gated" or MODE == "mean":
        shares = _shared_out(present, shares, M)
    present, shares = _standing(present, M), _standing(shares, M)
    if MODE == "gated entries":
        at = gates + row[:, None] * gate_row + column * gate_column
        shares = _shared_out(present, _raised(at, gate_modality, inside, present, shares, M), M)
    return present, shares


@triton.jit
def _entries(x, x_row, x_column, row, column, wanted):
    return tl.load(x + row * x_row + column * x_column, mask=wanted, other=0.0)


@triton.jit
def _modalities(xs, x_rows, x_columns, row, column, inside, present, M: tl.constexpr):
    """The entries of each modality; zeros, and never loaded, where it is absent."""
    held = ()
    for m in tl.static_range(M):
        held += (_entries(xs[m], x_rows[m], x_columns[m], row, column, present[m] & inside),)
    return held


@triton.jit
def _added_up(held, inside, present, shares, M: tl.constexpr):
    z = tl.zeros(inside.shape, tl.float32)
    for m in tl.static_range(M):
        z += tl.where(present[m], shares[m] * held[m].to(tl.float32), 0.0)
    return z


@triton.jit
def _largest(held, inside, present, M: tl.constexpr):
    """The largest of the present entries, and the number of its modality; 0 and -1 where there is none."""
    z = tl.zeros(inside.shape, tl.float32)
    place = tl.full(inside.shape, -1, tl.int32)
    for m in tl.static_range(M):
        x = held[m].to(tl.float32)
        # The first entry is larger than none, and the first NaN is larger than any number.
        taken = present[m] & ((x > z) | ((x != x) & (z == z)) | (place < 0))
        z = tl.where(taken, x, z)
        place = tl.where(taken, m, place)
    return z, place


@triton.jit
def _standardised(z, live, inside, width, eps):
    """Rows with mean 0 and variance 1, zeros outside; and 1/deviation, [ROWS, 1]."""
    centred = tl.where(inside, z - tl.sum(z, 1, keep_dims=True) / width, 0.0)
    variance = tl.sum(centred * centred, 1, keep_dims=True) / width
    # A row beyond the last has neither; with eps = 0 it would have infinity.
    rstd = tl.where(live, tl.rsqrt(tl.where(live, variance + eps, 1.0)), 0.0)
    return centred * rstd, rstd


@triton.jit
def _vector(vector, column, width):
    return tl.load(vector + column, mask=column < width, other=0.0).to(tl.float32)


@triton.jit
def _activated(u, ACTIVATION: tl.constexpr):
    if ACTIVATION == "relu":
        # NaN stays NaN.
        u = tl.where(u < 0.0, 0.0, u)
    elif ACTIVATION == "gelu":
        u = 0.5 * u * (1.0 + tl.erf(u * 0.7071067811865476))
    elif ACTIVATION == "silu":
        u = u * _sigmoid(u)
    return u


@triton.jit
def _sigmoid(u):
    # The exponential is of a number below 0: it cannot overflow.
    small = tl.exp(-tl.abs(u))
    return tl.where(u < 0.0, small, 1.0) / (1.0 + small)


@triton.jit
def _through_activation(du, u, ACTIVATION: tl.constexpr):
    if ACTIVATION == "relu":
        du = tl.where(u <= 0.0, 0.0, du)
    elif ACTIVATION == "gelu":
        density = 0.3989422804014327 * tl.exp(-0.5 * u * u)
        du = du * (0.5 * (1.0 + tl.erf(u * 0.7071067811865476)) + u * density)
    elif ACTIVATION == "silu":
        share = _sigmoid(u)
        du = du * share * (1.0 + u * (1.0 - share))
    return du


@triton.jit
def forward_rows(
    xs, x_rows, x_columns, mask, mask_row, mask_column, gates, gate_row, gate_modality, gate_column,
    norm_weight, norm_bias, y, rows, width, eps,
    M: tl.constexpr, MODE: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row, column = number[:, None], tl.arange(0, BLOCK).to(tl.int64)[None, :]
    live = row < rows
    inside = live & (column < width)
    present, shares = _presence_and_shares(mask, mask_row, mask_column, gates, gate_row, gate_modality,
                                           gate_column, number, column, inside, number < rows, M, MODE)  # fmt: skip
    held = _modalities(xs, x_rows, x_columns, row, column, inside, present, M)
    if MODE == "max":
        u, _ = _largest(held, inside, present, M)
    else:
        u = _added_up(held, inside, present, shares, M)
    if norm_weight is not None:
        standard, _ = _standardised(u, live, inside, width, eps)
        u = standard * _vector(norm_weight, column, width)
        if norm_bias is not None:
            u += _vector(norm_bias, column, width)
    u = _activated(u, ACTIVATION)
    tl.store(y + row * width + column, u.to(y.dtype.element_ty), mask=inside)


@triton.jit
def backward_rows(
    grad, grad_row, grad_column,
    xs, x_rows, x_columns, mask, mask_row, mask_column, gates, gate_row, gate_modality, gate_column,
    norm_weight, norm_bias, dgates, dxs, partials, rows, width, eps,
    M: tl.constexpr, MODE: tl.constexpr, ACTIVATION: tl.constexpr, READS: tl.constexpr, NEEDS: tl.constexpr,
    PARTIALS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Bit m of NEEDS asks for the gradient of modality m; dxs[m] is anything where it is not set.

    partials, [PARTIALS, programs, width], gets the sums over this program's rows for the norm's bias and, with
    PARTIALS == 2, for its weight.
    """
    column = tl.arange(0, BLOCK).to(tl.int64)[None, :]
    bias_sum = tl.zeros([ROWS, BLOCK], tl.float32)
    weight_sum = tl.zeros([ROWS, BLOCK], tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        number = block * ROWS + tl.arange(0, ROWS).to(tl.int64)
        row = number[:, None]
        live = row < rows
        inside = live & (column < width)
        present, shares = _presence_and_shares(mask, mask_row, mask_column, gates, gate_row, gate_modality,
                                               gate_column, number, column, inside, number < rows,
                                               M, MODE)  # fmt: skip
        dz = _entries(grad, grad_row, grad_column, row, column, inside).to(tl.float32)
        if READS:
            held = _modalities(xs, x_rows, x_columns, row, column, inside, present, M)
            if MODE == "max":
                z, place = _largest(held, inside, present, M)
            else:
                z = _added_up(held, inside, present, shares, M)
            if norm_weight is None:
                dz = _through_activation(dz, z, ACTIVATION)
            else:
                gamma = _vector(norm_weight, column, width)
                standard, rstd = _standardised(z, live, inside, width, eps)
                u = standard * gamma
                if norm_bias is not None:
                    u += _vector(norm_bias, column, width)
                dz = _through_activation(dz, u, ACTIVATION)
                if PARTIALS > 0:
                    bias_sum += dz
                if PARTIALS > 1:
                    weight_sum += dz * standard
                dz = dz * gamma
                along = tl.sum(dz * standard, 1, keep_dims=True) / width
                dz = (dz - tl.sum(dz, 1, keep_dims=True) / width - standard * along) * rstd
        for m in tl.static_range(M):
            if dgates is not None:
                better = tl.where(present[m] & inside, dz * (held[m].to(tl.float32) - z), 0.0)
                if MODE == "gated":
                    found = tl.where(present[m], shares[m] * tl.sum(better, 1, keep_dims=True), 0.0)
                    tl.store(dgates + row * M + m, found.to(dgates.dtype.element_ty), mask=live)
                else:
                    found = tl.where(present[m], shares[m] * better, 0.0).to(dgates.dtype.element_ty)
                    tl.store(dgates + (row * M + m) * width + column, found, mask=inside)
            if (NEEDS >> m) & 1:
                if MODE == "max":
                    dx = tl.where(place == m, dz, 0.0)
                else:
                    dx = tl.where(present[m], shares[m] * dz, 0.0)
                tl.store(dxs[m] + row * width + column, dx.to(dxs[m].dtype.element_ty), mask=inside)
    if PARTIALS > 0:
        at = partials + tl.program_id(0).to(tl.int64) * width + column
        tl.store(at, tl.sum(bias_sum, 0, keep_dims=True), mask=column < width)
        if PARTIALS > 1:
            at += tl.num_programs(0).to(tl.int64) * width
            tl.store(at, tl.sum(weight_sum, 0, keep_dims=True), mask=column < width)


@triton.jit
def add_partials(partials, dbias, dweight, programs, width, SLICE: tl.constexpr, BLOCK: tl.constexpr):
    """Adds up what the programs of `backward_rows` found, always in the same order."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    bias_sum = tl.zeros([SLICE, BLOCK], tl.float32)
    weight_sum = tl.zeros([SLICE, BLOCK], tl.float32)
    for start in range(0, programs, SLICE):
        program = (start + tl.arange(0, SLICE)).to(tl.int64)[:, None]
        wanted = (program < programs) & (column < width)
        bias_sum += tl.load(partials + program * width + column, mask=wanted, other=0.0)
        if dweight is not None:
            at = partials + (programs + program) * width + column
            weight_sum += tl.load(at, mask=wanted, other=0.0)
    if dbias is not None:
        found = tl.sum(bias_sum, 0, keep_dims=True)
        tl.store(dbias + column, found.to(dbias.dtype.element_ty), mask=column < width)
    if dweight is not None:
        found = tl.sum(weight_sum, 0, keep_dims=True)
        tl.store(dweight + column, found.to(dweight.dtype.element_ty), mask=column < width)

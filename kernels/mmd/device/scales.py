"""What is measured once of both samples: the bandwidth, the factors of the pairs, whether there is an answer."""

import triton
import triton.language as tl

from kernels.mmd.device.parts import COUNTS, PARTIALS


@triton.jit
def _added(partials, which, start, stop, BLOCK: tl.constexpr):
    """The sum of one of the numbers that the blocks from `start` to `stop` left, in float64."""
    total = tl.zeros((BLOCK,), tl.float64)
    for first in range(start, stop, BLOCK):
        at = first + tl.arange(0, BLOCK)
        total += tl.load(partials + at * PARTIALS + which, mask=at < stop, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def _over(value, total):
    return tl.where(total == 0, 0.0, value / tl.where(total == 0, 1.0, total))


@triton.jit
def settle(
    partials, shift, counts, bandwidth, scales, x_blocks, blocks, parts,
    HAS_BANDWIDTH: tl.constexpr, UNBIASED: tl.constexpr, KERNELS: tl.constexpr, WIDEST: tl.constexpr,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: all of `reference.SCALES`."""
    count_x = _added(partials, 3, 0, x_blocks, BLOCK)
    count_y = _added(partials, 3, x_blocks, blocks, BLOCK)
    lengths = _added(partials, 0, 0, blocks, BLOCK)
    if HAS_BANDWIDTH:
        width = tl.load(bandwidth).to(tl.float32)
    else:
        count = count_x + count_y
        spread = tl.maximum(
            lengths - count * tl.load(shift).to(tl.float64), 0.0, propagate_nan=tl.PropagateNan.ALL
        )
        width = (2.0 * spread / tl.maximum(count - 1.0, 1.0)).to(tl.float32)
    widest = width * WIDEST
    tl.store(scales, _over(1.0, widest))

    sum_x = _added(partials, 1, 0, x_blocks, BLOCK)
    sum_y = _added(partials, 1, x_blocks, blocks, BLOCK)
    squares_x = _added(partials, 2, 0, x_blocks, BLOCK)
    squares_y = _added(partials, 2, x_blocks, blocks, BLOCK)
    pairs_x = sum_x * sum_x
    pairs_y = sum_y * sum_y
    least = 1.0
    diagonal = _over(squares_x, pairs_x) + _over(squares_y, pairs_y)
    if UNBIASED:
        pairs_x -= squares_x
        pairs_y -= squares_y
        least = 2.0
        diagonal = diagonal * 0.0
    tl.store(scales + 1, _over(1.0, pairs_x).to(tl.float32))
    tl.store(scales + 2, _over(1.0, pairs_y).to(tl.float32))
    tl.store(scales + 3, _over(-1.0, sum_x * sum_y).to(tl.float32))

    p = tl.arange(0, PARTS)
    peak_x = tl.max(tl.load(counts + p * COUNTS + 1, mask=p < parts, other=0.0), 0)
    peak_y = tl.max(tl.load(counts + p * COUNTS + 2, mask=p < parts, other=0.0), 0)
    tl.store(scales + 4, 1.0 / tl.where(peak_x == 0, 1.0, peak_x))
    tl.store(scales + 5, 1.0 / tl.where(peak_y == 0, 1.0, peak_y))
    tl.store(scales + 6, (KERNELS * diagonal).to(tl.float32))
    # NaN in any row is NaN here, and from here in all gradients.
    sound = (lengths * 0.0).to(tl.float32) + 1.0
    tl.store(scales + 7, tl.where((count_x >= least) & (count_y >= least), sound, 0.0))

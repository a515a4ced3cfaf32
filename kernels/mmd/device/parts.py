"""What the kernels have in common: the numbers they leave each other, rounding, and the pairs of two blocks."""

import triton
import triton.language as tl

# Numbers a part that `totals` leaves: present rows, greatest weight of x, of y.
COUNTS: tl.constexpr = tl.constexpr(4)
# Numbers a block that `prepare` leaves: squared lengths, relative weights, their squares, present rows.
PARTIALS: tl.constexpr = tl.constexpr(4)


@triton.jit
def rounded(values, HALF: tl.constexpr):
    """To fewer bits, still as float32; HALF is half of the last one that stays. NaN may come out as 0.

    By hand, since the conversion and back, of single numbers, takes as long as an exponential.
    """
    bits = values.to(tl.uint32, bitcast=True) + HALF
    return (bits & (0x100000000 - 2 * HALF)).to(tl.float32, bitcast=True)


@triton.jit
def widest(product, half_i, half_j, inverse):
    """The kernel of the greatest bandwidth, of the products and the scaled squared lengths of two blocks."""
    exponent = product * (2.0 * inverse) - half_i[:, None] - half_j[None, :]
    return tl.exp2(tl.minimum(exponent, 0.0, propagate_nan=tl.PropagateNan.ALL))


@triton.jit
def products(Z, row, column, padded, WIDTH: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr,
             COLUMNS: tl.constexpr, SPLIT: tl.constexpr):  # fmt: skip
    """z_i . z_j of the blocks from `row` and from `column`, K numbers at a time.

    SPLIT: of float32 rows that lie in two halves as `prepare` says, in TF32. What is left out, the product of the lower
    halves, is below float32's own rounding. Tensor cores cut their sums off: only short ones are left to them.
    """
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    k = tl.arange(0, K)
    # One pointer a block and small offsets: a pointer for each number would want most registers.
    to_i = Z + tl.cast(row, tl.int64) * WIDTH
    to_j = Z + tl.cast(column, tl.int64) * WIDTH
    of_i = tl.arange(0, ROWS)[:, None] * WIDTH + k[None, :]
    of_j = tl.arange(0, COLUMNS)[:, None] * WIDTH + k[None, :]
    lower = padded.to(tl.int64) * WIDTH
    for k0 in range(0, WIDTH, K):
        zi = tl.load(to_i + k0 + of_i)
        zj = tl.trans(tl.load(to_j + k0 + of_j))
        if SPLIT:
            lower_j = tl.trans(tl.load(to_j + lower + k0 + of_j))
            lower_i = tl.load(to_i + lower + k0 + of_i)
            part = tl.dot(lower_i, zj, tl.dot(zi, lower_j, input_precision="tf32"), input_precision="tf32")
            product += tl.dot(zi, zj, part, input_precision="tf32")
        else:
            product = tl.dot(zi, zj, product, input_precision="tf32")
    return product

"""Matrix products whose sums are kept in the precision of the result, whatever the dtype of the factors."""

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor, *, out: Tensor) -> None:
    """`out = a @ b`."""
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    elif a.is_cuda:
        torch.mm(a, b, out_dtype=out.dtype, out=out)
    else:
        torch.mm(a.to(out.dtype), b.to(out.dtype), out=out)


def add_product(a: Tensor, b: Tensor, *, onto: Tensor) -> None:
    """`onto += a @ b`."""
    if a.dtype == onto.dtype:
        onto.addmm_(a, b)
    elif a.is_cuda:
        # A batch of one: torch 2.8 refuses a sum of another dtype than the factors in addmm, and takes it here.
        batch = onto.unsqueeze(0)
        torch.baddbmm(batch, a.unsqueeze(0), b.unsqueeze(0), out_dtype=onto.dtype, out=batch)
    else:
        onto.addmm_(a.to(onto.dtype), b.to(onto.dtype))


def accumulate(a: Tensor, b: Tensor, *, onto: Tensor, first: bool) -> None:
    """`onto += a @ b`, or `onto = a @ b` the first time: `onto` needs no zeros then."""
    if first:
        product(a, b, out=onto)
    else:
        add_product(a, b, onto=onto)


def scaled(sums: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """`sums * factor`, rounded once to `dtype`, without a copy in between."""
    return torch.mul(sums, factor, out=sums.new_empty(sums.shape, dtype=dtype))

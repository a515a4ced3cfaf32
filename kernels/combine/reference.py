"""Combining modalities, and its gradients, in plain torch: the specification, and the path for the CPU.

Knows no autograd: the backward is written out, so that frozen inputs cost nothing.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from kernels.activations import ACTIVATIONS, GRADIENTS
from kernels.norms import accumulation, affine, standardise, through_standardise


def reads_entries(mode: str, norm_weight: Tensor | None, activation: str) -> bool:
    """Whether the backward needs the modalities themselves."""
    return mode in ("max", "gated") or norm_weight is not None or activation != "none"


def forward(
    first: Tensor,
    others: Sequence[Tensor],
    mask: Tensor | None,
    gates: Tensor | None,
    mode: str,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    activation: str,
) -> Tensor:
    """The output [rows, H]."""
    u = _combined([first, *others], mask, gates, mode)
    if norm_weight is not None:
        u = affine(standardise(u, eps)[0], norm_weight, norm_bias)
    return ACTIVATIONS[activation](u).to(first.dtype)


def backward(
    grad: Tensor,
    xs: Sequence[Tensor],
    mask: Tensor | None,
    gates: Tensor | None,
    mode: str,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    activation: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients that `needs` asks for, in the order gates, norm_weight, norm_bias, *xs.

    `xs` are read, and may be left out otherwise, if `reads_entries`.
    """
    need_gates, need_norm_weight, need_norm_bias, *need_xs = needs
    precision, gradients = accumulation(grad.dtype), []
    reads = reads_entries(mode, norm_weight, activation)
    z = _combined(xs, mask, gates, mode) if reads else grad.new_empty(0)

    dz = du = grad.to(precision)
    standard = z
    if norm_weight is not None:
        standard, rstd = standardise(z, eps)
        du = GRADIENTS[activation](du, affine(standard, norm_weight, norm_bias))
        dz = through_standardise(du * norm_weight.to(precision), standard, rstd)
    elif activation != "none":
        dz = GRADIENTS[activation](du, z)

    parts = _present(mask, len(need_xs))
    shares = _shares(mask, gates, mode, len(need_xs), grad)
    if mode == "max":
        parts = _first_largest(xs, parts, z)
    if need_gates and gates is not None:
        gradients.append(_through_gates(dz, z, xs, parts, shares, gates))
    if need_norm_weight and norm_weight is not None:
        gradients.append((du * standard).sum(0).to(norm_weight.dtype))
    if need_norm_bias and norm_bias is not None:
        gradients.append(du.sum(0).to(norm_bias.dtype))
    gradients += [
        # A copy where nothing else made one: two results of an op may not be one tensor.
        _weighed(dz, part, share).to(grad.dtype, copy=part is None and share is None)
        for part, share, needed in zip(parts, shares, need_xs, strict=True)
        if needed
    ]
    return gradients


def _combined(xs: Sequence[Tensor], mask: Tensor | None, gates: Tensor | None, mode: str) -> Tensor:
    """The modalities as one, before norm and activation: [rows, H]."""
    wide, present = accumulation(xs[0].dtype), _present(mask, len(xs))
    if mode == "max":
        return _largest([x.to(wide) for x in xs], present)
    shares = _shares(mask, gates, mode, len(xs), xs[0])
    parts = [_weighed(x.to(wide), *of) for x, of in zip(xs, zip(present, shares, strict=True), strict=True)]
    # One modality alone is copied: the result of an op may not be its argument.
    return reduce(torch.add, parts) if len(parts) > 1 else parts[0].clone()


def _present(mask: Tensor | None, modalities: int) -> Sequence[Tensor | None]:
    """For each modality where it is, [rows, 1]; None if everywhere."""
    return [None] * modalities if mask is None else (mask != 0).split(1, dim=1)


def _shares(
    mask: Tensor | None, gates: Tensor | None, mode: str, modalities: int, beside: Tensor
) -> Sequence[Tensor | None]:
    """For each modality what its present entries count for, [rows, 1] or [rows, H]; None if once."""
    precision = accumulation(beside.dtype)
    if gates is not None:
        return _softmax(mask, gates.to(precision)).unbind(1)
    if mode == "max" or (mode == "sum" and (mask is None or mask.dtype == torch.bool)):
        return [None] * modalities
    if mask is None:
        return [torch.full((1, 1), 1 / modalities, dtype=precision, device=beside.device)] * modalities
    counts = mask.to(precision)
    if mode == "sum":
        return counts.split(1, dim=1)
    total = counts.sum(1, keepdim=True)
    # A row without any modality counts for nothing; 0/0 would poison it.
    return (counts / torch.where(total == 0, 1, total)).split(1, dim=1)


def _softmax(mask: Tensor | None, logits: Tensor) -> Tensor:
    """Of the present ones' logits, each as often as its mask says: [rows, M, 1] or [rows, M, H]."""
    logits = logits.unsqueeze(2) if logits.ndim == 2 else logits
    if mask is None:
        return logits.softmax(1)
    present = (mask != 0).unsqueeze(2)
    if mask.dtype != torch.bool:
        logits = logits + mask.to(logits.dtype).log().unsqueeze(2)
    # Of a row without any modality the softmax is no number, and is left out.
    return torch.where(present, torch.where(present, logits, -torch.inf).softmax(1), 0)


def _largest(xs: Sequence[Tensor], present: Sequence[Tensor | None]) -> Tensor:
    there = [part for part in present if part is not None]
    if not there:
        return torch.stack(list(xs)).amax(0)
    candidates = [torch.where(part, x, -torch.inf) for x, part in zip(xs, there, strict=True)]
    return torch.where(reduce(torch.logical_or, there), torch.stack(candidates).amax(0), 0)


def _first_largest(
    xs: Sequence[Tensor], present: Sequence[Tensor | None], z: Tensor
) -> Sequence[Tensor | None]:
    """Where each modality is the first one whose present entry is the largest, NaN being larger than any number."""
    chosen: list[Tensor | None] = []
    taken = torch.zeros_like(z, dtype=torch.bool)
    for x, there in zip(xs, present, strict=True):
        here = ((x == z) | x.isnan()) & ~taken
        here = here if there is None else here & there
        chosen.append(here)
        taken = taken | here
    return chosen


def _through_gates(
    dz: Tensor,
    z: Tensor,
    xs: Sequence[Tensor],
    present: Sequence[Tensor | None],
    shares: Sequence[Tensor | None],
    gates: Tensor,
) -> Tensor:
    """The gradient of the logits: how much better than the whole each modality is, by its share."""
    columns = []
    for x, there, share in zip(xs, present, shares, strict=True):
        along = dz * (x.to(dz.dtype) - z)
        columns.append(_weighed(along if gates.ndim == 3 else along.sum(1, keepdim=True), there, share))
    stacked = torch.stack(columns, dim=1) if gates.ndim == 3 else torch.cat(columns, dim=1)
    return stacked.to(gates.dtype)


def _weighed(rows: Tensor, part: Tensor | None, share: Tensor | None) -> Tensor:
    """`rows` times `share`, and zeros outside of `part`. Never by a product: 0 x NaN is NaN."""
    weighed = rows if share is None else rows * share
    return weighed if part is None else torch.where(part, weighed, 0)

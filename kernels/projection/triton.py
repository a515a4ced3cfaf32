"""The masked projection on Triton's kernels, and on cuBLAS where it is the better product. Knows no autograd.

Half precision is multiplied by the kernels that read all modalities where they lie and leave out what is absent, or
by cuBLAS, as the configuration says. float32 is always multiplied by cuBLAS, which follows torch's TF32 setting.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels.projection import gradients, launches, tiles
from kernels.projection.launches import Counts
from kernels.projection.reference import keeps_sum, sum_dtype

#: A program of the row kernels holds a whole row in registers.
_WIDEST_NORM = 8192

#: Triton takes a stride for one of wide loads if 16 divides it.
_PITCH = 16


def refuses_forward(
    _xs: Sequence[Tensor],
    weight: Tensor,
    _bias: Tensor | None,
    _mask: Tensor | None,
    _mean: bool,
    norm_weight: Tensor | None,
    *_: Any,
) -> str | None:
    if norm_weight is not None and weight.shape[0] > _WIDEST_NORM:
        return f"LayerNorm over more than {_WIDEST_NORM} outputs"
    return None


def refuses_backward(_grad: Tensor, _z: Tensor, *arguments: Any) -> str | None:
    return refuses_forward(*arguments)


def forward(
    xs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    mean: bool,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """As the reference: the output, and the sum before norm and activation (empty if not needed)."""
    rows, outputs = xs[0].shape[0], weight.shape[0]
    weight = _aligned(weight, rows)
    keeps, kept = keeps_sum(norm_weight, activation), sum_dtype(weight, rows, norm_weight, activation)
    y = weight.new_empty(rows, outputs)
    z = weight.new_empty((rows, outputs) if keeps else (0,), dtype=kept)
    if not y.numel():
        return y, z
    counts, stored = launches.counts(mask), z if keeps else None
    config = tiles.add_up(rows, weight.shape[1], outputs, counts.kind)
    after = counts, mean, len(xs), norm_weight, norm_bias, eps, activation

    if _by_cublas(weight, config):
        early = None if mean else bias
        sums = _product(xs, weight, early, counts)
        if not (keeps or mean):
            return sums, z
        launches.finish(sums, bias if mean else None, *after, y, stored)
    elif config["SPLIT"] > 1:
        parts = weight.new_empty(config["SPLIT"], rows, outputs, dtype=torch.float32)
        launches.add_up(xs, weight, None, counts, False, None, parts, "none", config)
        launches.finish(parts, bias, *after, y, stored)
    elif norm_weight is not None:
        launches.add_up(xs, weight, bias, counts, mean, None, z, "none", config)
        launches.finish(z, None, counts, False, *after[2:], y, None)
    else:
        launches.add_up(xs, weight, bias, counts, mean, y, stored, activation, config)
    return y, z


def backward(
    grad: Tensor,
    z: Tensor,
    xs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    mean: bool,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    activation: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    """As the reference: the gradients that `needs` asks for, in the order weight, bias, norm_weight, norm_bias, *xs."""
    sources = [weight, bias, norm_weight, norm_bias, *xs]
    found = [
        source.new_empty(source.shape) if needed and source is not None else None
        for source, needed in zip(sources, needs, strict=True)
    ]
    if not grad.numel():
        return [gradient.zero_() for gradient in found if gradient is not None]
    dweight, *vectors = found[:4]
    dxs = found[4:]
    needs_dz = dweight is not None or any(dx is not None for dx in dxs)
    dz, shares = gradients.to_sum(
        grad,
        z,
        launches.counts(mask),
        mean,
        len(xs),
        norm_weight,
        norm_bias,
        eps,
        activation,
        needs_dz,
        vectors,
    )
    wanted = {m: dx for m, dx in enumerate(dxs) if dx is not None and dx.numel()}
    if dweight is not None and wanted and _to_both(dz, xs, weight, shares, dweight, wanted):
        return [gradient for gradient in found if gradient is not None]
    if dweight is not None:
        _to_weight(dz, xs, shares, dweight)
    if wanted:
        _to_inputs(dz, xs, _aligned(weight, len(dz)), shares, wanted)
    return [gradient for gradient in found if gradient is not None]


def _aligned(weight: Tensor, rows: int) -> Tensor:
    """The weight with rows that begin at places wide loads can read, copied if need be and if there is enough to read.

    A width of towers and a few columns more, such as an indicator's, puts every second row at an odd place.
    """
    fits = weight.stride(1) == 1 and weight.stride(0) % _PITCH == 0
    if fits or rows <= 64 or weight.dtype == torch.float32:
        return weight
    outputs, inputs = weight.shape
    wide = weight.new_empty(outputs, -(-inputs // _PITCH) * _PITCH)[:, :inputs]
    return wide.copy_(weight)


def _by_cublas(weight: Tensor, config: dict[str, int]) -> bool:
    return weight.dtype == torch.float32 or config["WAY"] == tiles.CUBLAS


def _product(xs: Sequence[Tensor], weight: Tensor, bias: Tensor | None, shares: Counts) -> Tensor:
    """The sum over all modalities by cuBLAS. float32 without a mask needs no concatenation: its sums are not rounded."""
    bias = None if bias is None else bias.to(weight.dtype)
    if weight.dtype != torch.float32 or shares.numbers is not None:
        return functional.linear(_joined(xs, shares), weight, bias)
    first, *others = zip(xs, weight.split([x.shape[1] for x in xs], dim=1), strict=True)
    sums = functional.linear(*first, bias)
    for x, block in others:
        sums.addmm_(x, block.T)
    return sums


def _joined(xs: Sequence[Tensor], shares: Counts) -> Tensor:
    """The concatenation, each entry times what it counts for."""
    if shares.numbers is None:
        return xs[0] if len(xs) == 1 else torch.cat(list(xs), dim=1)
    widths = [x.shape[1] for x in xs]
    joined = xs[0].new_empty(xs[0].shape[0], sum(widths))
    for m, (x, block) in enumerate(zip(xs, joined.split(widths, dim=1), strict=True)):
        launches.weigh(x, shares, m, block)
    return joined


def _to_both(
    dz: Tensor,
    xs: Sequence[Tensor],
    weight: Tensor,
    shares: Counts,
    dweight: Tensor,
    wanted: Mapping[int, Tensor],
) -> bool:
    """Both products of the backward in one launch, if the configuration says so and all modalities fit into it."""
    (rows, outputs), widths = dz.shape, [x.shape[1] for x in xs]
    config = tiles.to_both(rows, sum(widths), outputs, shares.kind)
    fits = list(tiles.groups(dict(enumerate(widths)))) == [(list(range(len(xs))), True)]
    if not fits or shares.weighted or _by_cublas(weight, config):
        return False
    parts = _parts(dweight, config)
    starts = list(accumulate(widths, initial=0))
    gradients.to_both(dz, _aligned(weight, rows), xs, starts, shares, parts, wanted, config)
    _add_parts(parts, dweight)
    return True


def _parts(dweight: Tensor, config: dict[str, int]) -> Tensor:
    """Where the gradient of the weight goes: at once, or in partial sums over the rows."""
    if config["SPLIT"] == 1:
        return dweight[None]
    return dweight.new_empty(config["SPLIT"], *dweight.shape, dtype=torch.float32)


def _add_parts(parts: Tensor, dweight: Tensor) -> None:
    if len(parts) > 1:
        gradients.fold(parts.flatten(1)[None], [dweight])


def _to_weight(dz: Tensor, xs: Sequence[Tensor], shares: Counts, dweight: Tensor) -> None:
    (rows, outputs), widths = dz.shape, [x.shape[1] for x in xs]
    config = tiles.to_weight(rows, sum(widths), outputs, shares.kind)
    if _by_cublas(dweight, config):
        if shares.numbers is not None:
            torch.mm(dz.T, _joined(xs, shares), out=dweight)
            return
        for x, block in zip(xs, dweight.split(widths, dim=1), strict=True):
            torch.mm(dz.T, x, out=block)
        return
    parts = _parts(dweight, config)
    starts = list(accumulate(widths, initial=0))
    for ms, even in tiles.groups(dict(enumerate(widths))):
        fitting = config if even else tiles.narrow(config)
        gradients.to_weight(dz, [xs[m] for m in ms], [starts[m] for m in ms], shares, ms, parts, fitting)
    _add_parts(parts, dweight)


def _to_inputs(
    dz: Tensor, xs: Sequence[Tensor], weight: Tensor, shares: Counts, wanted: Mapping[int, Tensor]
) -> None:
    widths = [x.shape[1] for x in xs]
    starts = list(accumulate(widths, initial=0))
    config = tiles.to_inputs(len(dz), max(widths), dz.shape[1], shares.kind)
    if _by_cublas(weight, config):
        for m, dx in wanted.items():
            torch.mm(dz, weight[:, starts[m] : starts[m + 1]], out=dx)
            if shares.numbers is not None:
                launches.weigh(dx, shares, m, dx)
        return
    for ms, even in tiles.groups({m: widths[m] for m in wanted}):
        fitting = config if even else tiles.narrow(config)
        some = [wanted[m] for m in ms]
        gradients.to_inputs(dz, weight, [starts[m] for m in ms], shares, ms, some, fitting)

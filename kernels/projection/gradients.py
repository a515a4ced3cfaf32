"""Each kernel of the backward as a function of tensors: allocation, strides, grids. Knows no order of work."""

from collections.abc import Mapping, Sequence

import torch
import triton
from torch import Tensor

from kernels.projection import device, tiles
from kernels.projection.launches import Counts, dense


def to_sum(
    grad: Tensor,
    z: Tensor,
    mask: Counts,
    mean: bool,
    modalities: int,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    activation: str,
    needs_dz: bool,
    vectors: Sequence[Tensor | None],
) -> tuple[Tensor, Counts]:
    """The gradient of the sum, and what counts from there on, divided by what a row has together if `mean`.

    `vectors` are the gradients of bias, norm_weight and norm_bias to be filled, None if not wanted.
    """
    rows, outputs = grad.shape
    stores_shares = mean and mask.weighted and needs_dz
    scales = mean and not mask.weighted and needs_dz
    changes = scales or norm_weight is not None or activation != "none"
    wanted = [vector for vector in vectors if vector is not None]
    shares = grad.new_empty(modalities if stores_shares else 0, rows, dtype=torch.float32)
    dz = torch.empty_like(grad, memory_format=torch.contiguous_format) if needs_dz and changes else grad
    config = tiles.to_sum(rows, outputs, norm_weight is not None, changes)
    blocks = triton.cdiv(rows, config["BLOCK_ROWS"])
    blocks_each = triton.cdiv(blocks, config.pop("PROGRAMS"))
    programs = triton.cdiv(blocks, blocks_each)
    parts = grad.new_empty(len(wanted), programs, outputs, dtype=torch.float32)
    if wanted or stores_shares or dz is not grad:
        device.to_sum[programs, triton.cdiv(outputs, config["BLOCK_OUTPUTS"])](
            grad,
            *grad.stride(),
            z,
            dense(norm_weight, grad),
            dense(norm_bias, grad),
            grad if mask.numbers is None else mask.numbers,
            *mask.strides(),
            shares,
            dz,
            parts,
            rows,
            outputs,
            blocks_each,
            eps,
            MODALITIES=modalities,
            HAS_MASK=mask.numbers is not None,
            HAS_NORM=norm_weight is not None,
            HAS_NORM_BIAS=norm_bias is not None,
            ACTIVATION=activation,
            STORES_DZ=dz is not grad,
            SCALES_DZ=scales,
            STORES_SHARES=stores_shares,
            SUMS_BIAS=vectors[0] is not None,
            SUMS_NORM_WEIGHT=vectors[1] is not None,
            SUMS_NORM_BIAS=vectors[2] is not None,
            **config,
        )
    if wanted:
        fold(parts, wanted)
    return dz, Counts(shares.T, True) if stores_shares else mask


def fold(parts: Tensor, wholes: Sequence[Tensor]) -> None:
    """`parts` [wholes, count, width] into `wholes`, each contiguous of `width` entries."""
    _, count, width = parts.shape
    config = tiles.fold(count, width)
    device.fold[triton.cdiv(width, config["BLOCK"]), len(wholes)](
        parts, tuple(wholes), count, width, WHOLES=len(wholes), **config
    )


def to_inputs(
    dz: Tensor,
    weight: Tensor,
    starts: Sequence[int],
    shares: Counts,
    ms: Sequence[int],
    dxs: Sequence[Tensor],
    config: dict[str, int],
) -> None:
    """Into `dxs`, the gradients of the modalities `ms`, whose blocks of the weight begin at `starts`."""
    config = tiles.without_way(config)
    (rows, outputs), widths = dz.shape, [dx.shape[1] for dx in dxs]
    row_tiles = triton.cdiv(rows, config["BLOCK_ROWS"])
    device.to_inputs[(row_tiles * sum(triton.cdiv(width, config["BLOCK_INPUTS"]) for width in widths),)](
        dz,
        *dz.stride(),
        weight,
        *weight.stride(),
        tuple(starts),
        tuple(shares.column(m, dz) for m in ms),
        shares.strides()[0],
        tuple(dxs),
        tuple(widths),
        rows,
        outputs,
        MODALITIES=len(dxs),
        HAS_SHARES=shares.numbers is not None,
        WEIGHTED=shares.weighted,
        **config,
    )


def to_weight(
    dz: Tensor,
    xs: Sequence[Tensor],
    starts: Sequence[int],
    shares: Counts,
    ms: Sequence[int],
    dweight: Tensor,
    config: dict[str, int],
) -> None:
    """Into the blocks of `dweight` [SPLIT, outputs, all inputs] that belong to the modalities `ms`, which are `xs`."""
    config = tiles.without_way(config)
    (rows, outputs), widths = dz.shape, [x.shape[1] for x in xs]
    output_tiles = triton.cdiv(outputs, config["BLOCK_OUTPUTS"])
    input_tiles = sum(triton.cdiv(width, config["BLOCK_INPUTS"]) for width in widths)
    device.to_weight[output_tiles * input_tiles, config["SPLIT"]](
        dz,
        *dz.stride(),
        tuple(xs),
        tuple(x.stride(0) for x in xs),
        tuple(x.stride(1) for x in xs),
        tuple(starts),
        tuple(shares.column(m, dz) for m in ms),
        shares.strides()[0],
        dweight,
        dweight.stride(1),
        tuple(widths),
        rows,
        outputs,
        MODALITIES=len(xs),
        HAS_SHARES=shares.numbers is not None,
        WEIGHTED=shares.weighted,
        **config,
    )


def to_both(
    dz: Tensor,
    weight: Tensor,
    xs: Sequence[Tensor],
    starts: Sequence[int],
    shares: Counts,
    dweight: Tensor,
    dxs: Mapping[int, Tensor],
    config: dict[str, int],
) -> None:
    """Into `dweight` as `to_weight`, and into `dxs`, the gradients of some modalities, as `to_inputs`."""
    config = tiles.without_way(config)
    (rows, outputs), widths = dz.shape, [x.shape[1] for x in xs]
    input_tiles = [triton.cdiv(width, config["BLOCK_INPUTS"]) for width in widths]
    weight_tiles = triton.cdiv(outputs, config["BLOCK_SIDE"]) * sum(input_tiles) * config["SPLIT"]
    row_tiles = triton.cdiv(rows, config["BLOCK_SIDE"])
    device.to_both[(weight_tiles + row_tiles * sum(input_tiles[m] for m in dxs),)](
        dz,
        *dz.stride(),
        weight,
        *weight.stride(),
        tuple(xs),
        tuple(x.stride(0) for x in xs),
        tuple(x.stride(1) for x in xs),
        tuple(starts),
        tuple(shares.column(m, dz) for m in range(len(xs))),
        tuple(widths),
        shares.strides()[0],
        dweight,
        dweight.stride(1),
        tuple(dxs.values()),
        tuple(starts[m] for m in dxs),
        tuple(shares.column(m, dz) for m in dxs),
        tuple(widths[m] for m in dxs),
        rows,
        outputs,
        MODALITIES=len(xs),
        WANTED=len(dxs),
        HAS_SHARES=shares.numbers is not None,
        WEIGHTED=shares.weighted,
        **config,
    )

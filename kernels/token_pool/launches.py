"""Each kernel of token pooling as a function of tensors: room for parts, strides, grids. Knows no order of work."""

import torch
from torch import Tensor

from kernels.token_pool import device
from kernels.token_pool.tiles import Launch, launch
from kernels.tuned import power_of_two, tuned

#: Tiles that hold one token's columns at most: each costs registers, and a maximum keeps three of each.
_MOST_CHUNKS = {"mean": 8, "cls": 8, "max": 4, "gradient": 4}


def mean_of_tokens(
    tokens: Tensor,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    y: Tensor,
    pooled: Tensor,
    places: Tensor,
    eps: float,
    mode: str,
    l2_normalize: bool,
) -> None:
    """Into `y` and `pooled`; mode `cls`, which takes the first token alone, also into `places`."""
    rows = len(y)
    how = _launch(mode, tokens, rows, joins=True)
    sums = _part(pooled, how, torch.float32)
    device.mean_of_tokens[rows, how.splits](
        tokens,
        lengths,
        cu_seqlens,
        norm_weight,
        norm_bias,
        y,
        pooled,
        places if mode == "cls" else None,
        sums,
        *_extent(tokens),
        eps,
        how.splits,
        NORM=norm_weight is not None,
        L2=l2_normalize,
        **how.tiles,
    )
    if sums is not None:
        device.join_means[(rows,)](
            sums,
            lengths,
            cu_seqlens,
            norm_weight,
            norm_bias,
            y,
            pooled,
            tokens.shape[-2],
            how.splits,
            L2=l2_normalize,
            **how.joining,
        )


def max_of_tokens(
    tokens: Tensor,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    y: Tensor,
    pooled: Tensor,
    places: Tensor,
    eps: float,
    mode: str,
    l2_normalize: bool,
) -> None:
    """Into `y`, `pooled` and `places`."""
    rows = len(y)
    how = _launch(mode, tokens, rows, joins=True)
    parts = [_part(pooled, how, dtype) for dtype in (torch.int32, torch.int32, torch.float32)]
    device.max_of_tokens[rows, how.splits](
        tokens,
        lengths,
        cu_seqlens,
        norm_weight,
        norm_bias,
        y,
        pooled,
        places,
        *parts,
        *_extent(tokens),
        eps,
        how.splits,
        NORM=norm_weight is not None,
        L2=l2_normalize,
        **how.tiles,
    )
    if how.splits > 1:
        device.join_maxima[(rows,)](
            *parts,
            lengths,
            cu_seqlens,
            norm_weight,
            norm_bias,
            y,
            pooled,
            places,
            tokens.shape[-2],
            how.splits,
            L2=l2_normalize,
            **how.joining,
        )


def tokens_gradient(
    grad: Tensor,
    pooled: Tensor,
    places: Tensor | None,
    tokens: Tensor,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    dx: Tensor | None,
    dy: Tensor | None,
    eps: float,
    mode: str,
    l2_normalize: bool,
) -> None:
    """Into `dx`, and into `dy` the gradient of each row before it was given length 1."""
    how = _launch(f"{mode}_gradient", tokens, len(pooled), joins=False)
    splits = 1 if dx is None else how.splits
    device.tokens_gradient[len(pooled), splits](
        grad,
        *grad.stride(),
        pooled,
        places,
        tokens,
        lengths,
        cu_seqlens,
        norm_weight,
        norm_bias,
        dx,
        dy,
        *_extent(tokens),
        eps,
        splits,
        MODE=mode,
        L2=l2_normalize,
        **how.tiles,
    )


def norm_gradients(
    dy: Tensor,
    pooled: Tensor,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    most: int,
    dweight: Tensor | None,
    dbias: Tensor | None,
) -> None:
    """Into `dweight` and `dbias`; `most` as the kernels have it."""
    rows, width = pooled.shape
    default = {
        "W": min(32, power_of_two(width)),
        "ROWS": 64,
        "PARTS": min(-(-rows // 512), 64),
        "num_warps": 4,
    }
    config = tuned("token_pool.norm_gradient", {"rows": rows, "width": width}, default)
    parts = config.pop("PARTS")
    columns = -(-width // config["W"])
    into = [one if one is None or parts == 1 else pooled.new_empty(parts, width) for one in (dweight, dbias)]
    device.norm_gradient[columns, parts](
        dy,
        *dy.stride(),
        pooled,
        lengths,
        cu_seqlens,
        *into,
        rows,
        most,
        -(-rows // parts),
        WIDTH=width,
        **config,
    )
    for part, out in zip(into, (dweight, dbias), strict=True):
        if part is not None and out is not None and parts > 1:
            device.join_norm_gradients[(columns,)](
                part, out, parts, WIDTH=width, W=config["W"], PARTS=power_of_two(parts)
            )


def _launch(kernel: str, tokens: Tensor, rows: int, *, joins: bool) -> Launch:
    most = tokens.shape[1] if tokens.ndim == 3 else -(-tokens.shape[0] // rows)
    chunks = _MOST_CHUNKS[kernel if joins else "gradient"]
    return launch(kernel, tokens, rows, 1 if kernel == "cls" else most, most_chunks=chunks, joins=joins)


def _part(pooled: Tensor, how: Launch, dtype: torch.dtype) -> Tensor | None:
    """Room for what each split has found; none if it is the only one."""
    rows, width = pooled.shape
    return None if how.splits == 1 else pooled.new_empty((rows, how.splits, width), dtype=dtype)


def _extent(tokens: Tensor) -> tuple[int, int, int, int]:
    """The tokens of a row, or of all rows if packed; the strides of rows, tokens and columns."""
    row = tokens.stride(0) if tokens.ndim == 3 else 0
    return tokens.shape[-2], row, tokens.stride(-2), tokens.stride(-1)

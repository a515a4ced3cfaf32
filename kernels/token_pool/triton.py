"""Token pooling by Triton: which kernel runs, on how many programs, and where their results lie.

The forward reads each live token once. Where rows are few, several programs share one, each with a split of its
tokens, and a second kernel adds the splits up in a fixed order. The backward writes each token once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.registry import like_those_needed
from kernels.token_pool import device
from kernels.token_pool.launches import Launch, launch
from kernels.tuned import power_of_two, tuned

#: A token is held in registers as a whole.
WIDEST = 8192

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: Tiles that hold one token's columns at most: each costs registers, and a maximum keeps three of each.
_MOST_CHUNKS = {"mean": 8, "cls": 8, "max": 4, "gradient": 4}


def refuses_forward(
    tokens: Tensor,
    _lengths: Tensor | None,
    _cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    *_options: object,
) -> str | None:
    if tokens.shape[-1] > WIDEST:
        return f"the kernel takes at most {WIDEST} columns"
    for one in (tokens, norm_weight, norm_bias):
        if one is not None and one.dtype not in _DTYPES:
            return f"the kernel takes no {one.dtype}"
    return None


def refuses_backward(_grad: Tensor, _pooled: Tensor, _places: Tensor, *arguments: object) -> str | None:
    return refuses_forward(*arguments)  # type: ignore[arg-type]


def forward(
    tokens: Tensor,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    mode: str,
    l2_normalize: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output [rows, D]; what `backward` needs: the vectors before the norm's weight, and where they are from."""
    rows = tokens.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    shape = rows, tokens.shape[-1]
    # Without tokens no kernel runs, and all of it is zeros.
    new = tokens.new_empty if tokens.numel() and rows else tokens.new_zeros
    y, pooled = new(shape), new(shape, dtype=torch.float32)
    places = new((0,) if mode == "mean" else shape, dtype=torch.int64)
    if y.numel() and tokens.numel():
        lie = _dense(lengths), _dense(cu_seqlens)
        norm = _dense(norm_weight), _dense(norm_bias)
        pool = _max if mode == "max" else _mean
        pool(tokens, *lie, *norm, y, pooled, places, eps, mode, l2_normalize)
    return y, pooled, places


def _mean(
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


def _max(
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


def backward(
    grad: Tensor,
    pooled: Tensor,
    places: Tensor,
    tokens: Tensor,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    mode: str,
    l2_normalize: bool,
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients that `needs` asks for, in the order tokens, norm_weight, norm_bias."""
    sources = tokens, norm_weight, norm_bias
    gradients = like_those_needed(sources, needs)
    if not tokens.numel() or not len(pooled):
        return [gradient.zero_() for gradient in gradients]
    given = iter(gradients)
    dx, dweight, dbias = (
        next(given) if needed and source is not None else None
        for source, needed in zip(sources, needs, strict=True)
    )
    lie, pooled = (_dense(lengths), _dense(cu_seqlens)), pooled.contiguous()
    wants_norm = dweight is not None or dbias is not None
    # Behind a division by the length, the norm's part of the gradient is not `grad` itself.
    dy = torch.empty_like(pooled) if wants_norm and l2_normalize else None
    if dx is not None or dy is not None:
        how = _launch(f"{mode}_gradient", tokens, len(pooled), joins=False)
        splits = 1 if dx is None else how.splits
        device.tokens_gradient[len(pooled), splits](
            grad,
            *grad.stride(),
            pooled,
            None if mode == "mean" else places.contiguous(),
            tokens,
            *lie,
            _dense(norm_weight),
            _dense(norm_bias),
            dx,
            dy,
            *_extent(tokens),
            eps,
            splits,
            MODE=mode,
            L2=l2_normalize,
            **how.tiles,
        )
    if wants_norm:
        _norm_gradients(grad if dy is None else dy, pooled, *lie, tokens.shape[-2], dweight, dbias)
    return gradients


def _norm_gradients(
    dy: Tensor,
    pooled: Tensor,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    most: int,
    dweight: Tensor | None,
    dbias: Tensor | None,
) -> None:
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


def _dense(vector: Tensor | None) -> Tensor | None:
    return None if vector is None else vector.contiguous()

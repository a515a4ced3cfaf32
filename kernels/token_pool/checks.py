"""What a call of the token pooling must look like; a wrong one is refused in words. Knows no maths."""

import torch
from torch import Tensor

from kernels.shapes import check_vector, shown

MODES = ("mean", "max", "cls")


def check(
    tokens: Tensor,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    mode: str,
) -> None:
    """Raises ValueError that names the argument, what it is and what it should be."""
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; it is one of {', '.join(MODES)}")
    if lengths is not None and cu_seqlens is not None:
        raise ValueError("lengths and cu_seqlens are both given: tokens are either padded or packed")
    _check_tokens(tokens, is_packed=cu_seqlens is not None)
    if lengths is not None:
        _check_integers("lengths", lengths, tokens)
        if len(lengths) != len(tokens):
            raise ValueError(f"lengths is {shown(lengths)}; it has one number a row: [{len(tokens)}]")
    if cu_seqlens is not None:
        _check_integers("cu_seqlens", cu_seqlens, tokens)
        if not len(cu_seqlens):
            raise ValueError(
                "cu_seqlens is empty; it has one number more than there are rows, the first being 0"
            )
    if norm_bias is not None and norm_weight is None:
        raise ValueError("norm_bias is given without norm_weight: LayerNorm runs only with a norm_weight")
    for name, vector in (("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if vector is not None:
            check_vector(name, vector, tokens.shape[-1], tokens, "tokens")


def _check_tokens(tokens: Tensor, *, is_packed: bool) -> None:
    wanted = "[all tokens, D] beside cu_seqlens" if is_packed else "[rows, T, D]"
    if tokens.ndim != (2 if is_packed else 3) or not tokens.is_floating_point():
        raise ValueError(f"tokens is {shown(tokens)}; it is floating point of shape {wanted}")


def _check_integers(name: str, given: Tensor, tokens: Tensor) -> None:
    if given.ndim != 1 or given.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name} is {shown(given)}; it is int32 or int64 with one axis")
    if given.device != tokens.device:
        raise ValueError(f"{name} is {shown(given)} and tokens is {shown(tokens)}: they must share a device")

"""LayerNorm in two halves, as the references of several ops need it: to the standard, and back through it."""

import torch
from torch import Tensor


def accumulation(dtype: torch.dtype) -> torch.dtype:
    """What sums and LayerNorm statistics are kept in: never less than float32."""
    return torch.promote_types(dtype, torch.float32)


def standardise(z: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Each row of the last axis with mean 0 and variance 1, and the 1/deviation that it was multiplied by."""
    # In two passes: E[z^2] - E[z]^2 would cancel.
    centred = z - z.mean(-1, keepdim=True)
    rstd = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return centred * rstd, rstd


def through_standardise(grad: Tensor, standard: Tensor, rstd: Tensor) -> Tensor:
    """The gradient of z, given that of its standard."""
    along = (grad * standard).mean(-1, keepdim=True)
    return (grad - grad.mean(-1, keepdim=True) - standard * along) * rstd


def affine(standard: Tensor, norm_weight: Tensor, norm_bias: Tensor | None) -> Tensor:
    scaled = standard * norm_weight.to(standard.dtype)
    return scaled if norm_bias is None else scaled + norm_bias.to(standard.dtype)

"""Token pooling and its gradients in plain torch: the specification, and the path for the CPU.

LayerNorm's weight and bias commute with the mean, so they are applied to one vector a row. Knows no autograd.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kernels.norms import accumulation, affine, standardise, through_standardise
from kernels.token_pool.layouts import Layout, layout

#: As in `torch.nn.functional.normalize`: a shorter vector is divided by this.
SHORTEST = 1e-12


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
    lie, x = _read(tokens, lengths, cu_seqlens)
    standard = x if norm_weight is None else standardise(x, eps)[0]
    if mode == "mean":
        places = lie.counts.new_zeros(0)
        pooled = lie.sums(standard) / lie.counts.clamp(min=1)
    else:
        places = _places(lie, standard, norm_weight, mode)
        pooled = lie.taken(standard, places)
    y = _through_norm(pooled, lie, norm_weight, norm_bias)
    if l2_normalize:
        y = functional.normalize(y, dim=1, eps=SHORTEST)
    return y.to(tokens.dtype), pooled, places


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
    need_tokens, need_weight, need_bias = needs
    lie, x = _read(tokens, lengths, cu_seqlens)
    dy = grad.to(x.dtype)
    if l2_normalize:
        dy = _through_length(dy, _through_norm(pooled, lie, norm_weight, norm_bias))
    dy = torch.where(lie.counts > 0, dy, 0)

    gradients = []
    if need_tokens:
        scaled = dy if norm_weight is None else dy * norm_weight.to(x.dtype)
        dx = lie.spread(scaled / lie.counts.clamp(min=1)) if mode == "mean" else lie.put(scaled, places)
        if norm_weight is not None:
            # Of a dead token both are zeros, and so is what comes of them.
            dx = through_standardise(dx, *standardise(x, eps))
        gradients.append(dx.to(tokens.dtype))
    if need_weight and norm_weight is not None:
        gradients.append((dy * pooled).sum(0).to(norm_weight.dtype))
    if need_bias and norm_bias is not None:
        gradients.append(dy.sum(0).to(norm_bias.dtype))
    return gradients


def _read(tokens: Tensor, lengths: Tensor | None, cu_seqlens: Tensor | None) -> tuple[Layout, Tensor]:
    """How the tokens lie, and the live ones with zeros between them, wide enough to be added up."""
    lie = layout(tokens, lengths, cu_seqlens)
    return lie, lie.clean(tokens).to(accumulation(tokens.dtype))


def _places(lie: Layout, standard: Tensor, norm_weight: Tensor | None, mode: str) -> Tensor:
    if mode == "cls":
        return lie.places_of_first(standard.shape[-1])
    # The norm's bias moves all tokens of a column alike; its weight may turn their order around.
    return lie.places_of_largest(standard if norm_weight is None else standard * norm_weight)


def _through_norm(
    pooled: Tensor, lie: Layout, norm_weight: Tensor | None, norm_bias: Tensor | None
) -> Tensor:
    y = pooled if norm_weight is None else affine(pooled, norm_weight, norm_bias)
    return torch.where(lie.counts > 0, y, 0)


def _through_length(grad: Tensor, y: Tensor) -> Tensor:
    """The gradient of y, given that of y / |y|."""
    length = torch.linalg.vector_norm(y, dim=1, keepdim=True)
    unit = y / length.clamp(min=SHORTEST)
    along = torch.where(length < SHORTEST, 0, (grad * unit).sum(1, keepdim=True))
    return (grad - unit * along) / length.clamp(min=SHORTEST)

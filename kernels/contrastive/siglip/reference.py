"""What the SigLIP loss and its gradients are made of, in plain torch: the specification, and the path for the CPU.

`image` are this process's rows, `texts` the rows of all processes, this one's from row `offset` on. No logit
needs to know another, so the gradients are made where the logits are: in the forward.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kernels.contrastive.products import scaled
from kernels.contrastive.tiles import dots, largest, strips
from kernels.norms import accumulation


def forward(
    image: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    offset: int,
    chunk_bytes: int,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The sum of all pairs' losses, and its gradients by image/scale, texts/scale, logit_scale and logit_bias.

    All in the precision of sums. A gradient that `needs` does not ask for is an empty tensor.
    """
    precision = accumulation(image.dtype)
    scale, bias = logit_scale.to(precision), logit_bias.to(precision)
    need_image, need_texts, need_scale, need_bias = needs
    image_sums = image.new_zeros(image.shape if need_image else (0,), dtype=precision)
    text_sums = texts.new_zeros(texts.shape if need_texts else (0,), dtype=precision)
    loss, scale_sum, bias_sum = image.new_zeros(3, dtype=precision).unbind()
    bands = strips(image.shape[0], texts.shape[0], chunk_bytes, precision.itemsize)
    scratch = image.new_empty(largest(bands), dtype=precision)
    for band in bands:
        for tile in band:
            d = dots(image, texts, tile, scratch)
            s = d * scale + bias
            matching = torch.zeros_like(s, dtype=torch.bool)
            matching.diagonal(tile.shift(offset)).fill_(True)
            towards = torch.where(matching, -s, s)
            loss += -functional.logsigmoid(-towards).sum()
            g = torch.where(matching, -towards.sigmoid(), towards.sigmoid())
            if need_image:
                tile.of_image(image_sums).addmm_(g, tile.of_texts(texts).to(precision))
            if need_texts:
                tile.of_texts(text_sums).addmm_(g.T, tile.of_image(image).to(precision))
            scale_sum += (g * d).sum()
            bias_sum += g.sum()
    nothing = (loss.new_empty(0) for _ in range(2))
    return (
        loss.clone(),
        image_sums,
        text_sums,
        scale_sum.clone() if need_scale else next(nothing),
        bias_sum.clone() if need_bias else next(nothing),
    )


def backward(
    grad: Tensor,
    image_sums: Tensor,
    text_sums: Tensor,
    scale_sum: Tensor,
    bias_sum: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    rows: int,
    dtype: torch.dtype,
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients of the mean over `rows` rows that `needs` asks for: image, text, logit_scale, logit_bias."""
    need_image, need_text, need_scale, need_bias = needs
    factor = grad.to(accumulation(dtype)) / max(rows, 1)
    gradients = []
    if need_image:
        gradients.append(scaled(image_sums, logit_scale * factor, dtype))
    if need_text:
        gradients.append(scaled(text_sums, logit_scale * factor, dtype))
    if need_scale:
        gradients.append((scale_sum * factor).to(logit_scale.dtype))
    if need_bias:
        gradients.append((bias_sum * factor).to(logit_bias.dtype))
    return gradients

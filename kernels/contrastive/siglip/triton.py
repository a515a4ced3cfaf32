"""The SigLIP loss and its gradients on a GPU: matrix products by torch, one kernel over each tile of logits."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.contrastive import device
from kernels.contrastive.launches import blocks
from kernels.contrastive.products import accumulate
from kernels.contrastive.siglip import reference
from kernels.contrastive.tiles import dots, largest, strips

#: Three products by a number: torch's own kernels are as good as any.
backward = reference.backward


def forward(
    image: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    offset: int,
    chunk_bytes: int,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `reference.forward`."""
    image, texts = image.contiguous(), texts.contiguous()
    scale, bias = logit_scale.float(), logit_bias.float()
    need_image, need_texts, need_scale, need_bias = needs
    bands = strips(image.shape[0], texts.shape[0], chunk_bytes, torch.float32.itemsize)
    shared = blocks("siglip", image, texts)
    scratch = scale.new_empty(largest(bands))
    # The gradient may be written over the dot products that it was made of.
    in_place = image.dtype == torch.float32
    gradient = scratch if in_place else image.new_empty(largest(bands) if need_image or need_texts else 0)
    of_image = scale.new_empty(image.shape if need_image else 0)
    of_texts = scale.new_empty(texts.shape if need_texts else 0)
    all_parts = sum(shared.count(tile) for band in bands for tile in band)
    parts = scale.new_empty(3 if need_scale or need_bias else 1, all_parts)
    first_part = 0
    for band in bands:
        for tile in band:
            d = dots(image, texts, tile, scratch)
            device.siglip[shared.grid(tile)](
                d,
                scale,
                bias,
                gradient,
                parts,
                tile.rows,
                tile.columns,
                all_parts,
                first_part,
                tile.shift(offset),
                WITH_GRADIENT=need_image or need_texts,
                WITH_SCALARS=need_scale or need_bias,
                **shared.options,
            )
            first_part += shared.count(tile)
            g = gradient[: tile.cells].view(tile.rows, tile.columns) if need_image or need_texts else d
            if need_image:
                own = tile.of_image(of_image)
                accumulate(g, tile.of_texts(texts), onto=own, first=tile is band[0])
            if need_texts:
                own = tile.of_texts(of_texts)
                accumulate(g.T, tile.of_image(image), onto=own, first=band is bands[0])
    sums = parts.sum(1)
    return (
        sums[0].clone(),
        of_image,
        of_texts,
        sums[1].clone() if need_scale else scale.new_empty(0),
        sums[2].clone() if need_bias else scale.new_empty(0),
    )

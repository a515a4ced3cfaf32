"""The contrastive losses as ops that torch knows: schema, choice of implementation, shapes. Knows no autograd."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels import dispatch
from kernels.contrastive.tiles import keeps
from kernels.norms import accumulation
from kernels.registry import Half, register


def _implementations(loss: str) -> dict[dispatch.Backend, str]:
    return {
        dispatch.Backend.TORCH: f"kernels.contrastive.{loss}.reference",
        dispatch.Backend.TRITON: f"kernels.contrastive.{loss}.triton",
    }


def _clip_forward_shapes(
    image: Tensor, texts: Tensor, _logit_scale: Tensor, _offset: int, _chunk_bytes: int, budget: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    precision = accumulation(image.dtype)
    rows, columns = image.shape[0], texts.shape[0]
    kept = rows * columns if keeps(rows, columns, budget, precision.itemsize) else 0
    shapes = (2, rows), (2, columns), (rows,), (kept,)
    row, column, diagonal, logits = (image.new_empty(shape, dtype=precision) for shape in shapes)
    return row, column, diagonal, logits


def _clip_backward_shapes(
    _grad: Tensor,
    _row: Tensor,
    _column: Tensor,
    _logits: Tensor,
    image: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    _offset: int,
    _chunk_bytes: int,
    needs: Sequence[bool],
) -> list[Tensor]:
    whole = image.shape[0] == texts.shape[0]
    like = [
        image.new_empty(image.shape),
        texts.new_empty(texts.shape, dtype=None if whole else accumulation(texts.dtype)),
        logit_scale.new_empty(()),
    ]
    return [gradient for gradient, needed in zip(like, needs, strict=True) if needed]


def _siglip_forward_shapes(
    image: Tensor,
    texts: Tensor,
    _logit_scale: Tensor,
    _logit_bias: Tensor,
    _offset: int,
    _chunk_bytes: int,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    shapes = image.shape, texts.shape, (), ()
    asked = [shape if needed else (0,) for shape, needed in zip(shapes, needs, strict=True)]
    precision = accumulation(image.dtype)
    loss, of_image, of_texts, of_scale, of_bias = (
        image.new_empty(shape, dtype=precision) for shape in ((), *asked)
    )
    return loss, of_image, of_texts, of_scale, of_bias


def _siglip_backward_shapes(
    _grad: Tensor,
    image_sums: Tensor,
    text_sums: Tensor,
    _scale_sum: Tensor,
    _bias_sum: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    _rows: int,
    dtype: torch.dtype,
    needs: Sequence[bool],
) -> list[Tensor]:
    like = [
        image_sums.new_empty(image_sums.shape, dtype=dtype),
        text_sums.new_empty(text_sums.shape, dtype=dtype),
        logit_scale.new_empty(()),
        logit_bias.new_empty(()),
    ]
    return [gradient for gradient, needed in zip(like, needs, strict=True) if needed]


clip_forward, clip_backward = register(
    "clip_loss",
    _implementations("clip"),
    forward=Half(
        "(Tensor image, Tensor texts, Tensor logit_scale, SymInt offset, int chunk_bytes, int budget) "
        "-> (Tensor, Tensor, Tensor, Tensor)",
        _clip_forward_shapes,
        anchor=0,
    ),
    backward=Half(
        "(Tensor grad, Tensor row, Tensor column, Tensor logits, Tensor image, Tensor texts, "
        "Tensor logit_scale, SymInt offset, int chunk_bytes, bool[] needs) -> Tensor[]",
        _clip_backward_shapes,
        anchor=4,
    ),
)

siglip_forward, siglip_backward = register(
    "siglip_loss",
    _implementations("siglip"),
    forward=Half(
        "(Tensor image, Tensor texts, Tensor logit_scale, Tensor logit_bias, SymInt offset, int chunk_bytes, "
        "bool[] needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        _siglip_forward_shapes,
        anchor=0,
    ),
    backward=Half(
        "(Tensor grad, Tensor image_sums, Tensor text_sums, Tensor scale_sum, Tensor bias_sum, "
        "Tensor logit_scale, Tensor logit_bias, SymInt rows, ScalarType dtype, bool[] needs) -> Tensor[]",
        _siglip_backward_shapes,
        anchor=0,
    ),
)

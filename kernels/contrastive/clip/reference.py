"""What the CLIP loss and its gradients are made of, in plain torch: the specification, and the path for the CPU.

`image` are this process's rows, `texts` the rows of all processes, this one's from row `offset` on; without
others they are as many. Knows no autograd and no other process.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.contrastive.products import scaled
from kernels.contrastive.tiles import Tile, dots, keeps, kept, largest, strips
from kernels.norms import accumulation


def forward(
    image: Tensor, texts: Tensor, logit_scale: Tensor, offset: int, chunk_bytes: int, budget: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs as in `statistics` of every row [2, n] and of every column [2, m]; the matching logits [n].

    And the dot products for `backward`, tile by tile, if they fit in `budget` bytes (else empty). A column's
    pair is over the rows of `image` alone.
    """
    precision = accumulation(image.dtype)
    shape = image.shape[0], texts.shape[0]
    bands = strips(*shape, chunk_bytes, precision.itemsize)
    keep = keeps(*shape, budget, precision.itemsize)
    logits = image.new_empty(shape[0] * shape[1] if keep else 0, dtype=precision)
    scratch = image.new_empty(0 if keep else largest(bands), dtype=precision)
    row, column = (_nothing(length, image, precision) for length in shape)
    diagonal = row.new_empty(shape[0])
    for band in bands:
        for tile in band:
            s = dots(image, texts, tile, logits[tile.start :] if keep else scratch) * logit_scale.to(
                precision
            )
            _join(tile.of_image(row.T), s, 1)
            _join(tile.of_texts(column.T), s, 0)
            shift = tile.shift(offset)
            matching = s.diagonal(shift)
            first = tile.first_row + max(-shift, 0)
            diagonal[first : first + len(matching)] = matching
    row[1].log_()
    column[1].log_()
    return row, column, diagonal, logits


def backward(
    grad: Tensor,
    row: Tensor,
    column: Tensor,
    logits: Tensor,
    image: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    offset: int,
    chunk_bytes: int,
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients of the mean over this process's n rows that `needs` asks for: image, texts, logit_scale.

    `column` is over all processes' rows. With others (m != n) the gradient of `texts` is a part of a sum and
    stays in the precision of sums.
    """
    precision = accumulation(image.dtype)
    rows, columns = image.shape[0], texts.shape[0]
    need_image, need_texts, need_scale = needs
    scale = logit_scale.to(precision)
    factor = grad.to(precision) / (2 * max(rows, 1))
    image_sums = torch.zeros_like(image, dtype=precision) if need_image else None
    text_sums = torch.zeros_like(texts, dtype=precision) if need_texts else None
    scale_sum = scale.new_zeros(())
    bands = strips(rows, columns, chunk_bytes, precision.itemsize)
    scratch = image.new_empty(0 if logits.numel() else largest(bands), dtype=precision)
    for band in bands:
        for tile in band:
            d = kept(logits, tile) if logits.numel() else dots(image, texts, tile, scratch)
            g = _cell_gradients(d * scale, row, column, tile, offset)
            if image_sums is not None:
                tile.of_image(image_sums).addmm_(g, tile.of_texts(texts).to(precision))
            if text_sums is not None:
                tile.of_texts(text_sums).addmm_(g.T, tile.of_image(image).to(precision))
            if need_scale:
                scale_sum += (g * d).sum()
    gradients = []
    if image_sums is not None:
        gradients.append(scaled(image_sums, scale * factor, image.dtype))
    if text_sums is not None:
        whole = rows == columns
        gradients.append(scaled(text_sums, scale * factor, texts.dtype if whole else precision))
    if need_scale:
        gradients.append((scale_sum * factor).to(logit_scale.dtype))
    return gradients


def _nothing(length: int, like: Tensor, precision: torch.dtype) -> Tensor:
    """Of no logits at all: the greatest, and the sum of exponentials relative to it."""
    pairs = like.new_zeros(2, length, dtype=precision)
    pairs[0] = -torch.inf
    return pairs


def _join(pairs: Tensor, s: Tensor, dim: int) -> None:
    """Adds logits, along `dim`, to pairs [length, 2] of a greatest logit and a sum (not yet its log)."""
    top, total = pairs.unbind(1)
    new_top = torch.maximum(top, s.amax(dim))
    total.mul_((top - new_top).exp()).add_((s - new_top.unsqueeze(dim)).exp().sum(dim))
    top.copy_(new_top)


def _cell_gradients(s: Tensor, row: Tensor, column: Tensor, tile: Tile, offset: int) -> Tensor:
    """Of 2 n times the mean loss by each logit: within [-2, 2]."""
    row_top, row_log = tile.of_image(row.T).T.unsqueeze(2)
    column_top, column_log = tile.of_texts(column.T).T.unsqueeze(1)
    of_row, of_column = (s - row_top - row_log).exp(), (s - column_top - column_log).exp()
    # One from each share and not two from their sum: near convergence the difference is all there is.
    for share in (of_row, of_column):
        share.diagonal(tile.shift(offset)).sub_(1)
    return of_row + of_column

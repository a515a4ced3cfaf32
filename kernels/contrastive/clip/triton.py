"""The CLIP loss and its gradients on a GPU: matrix products by torch, one kernel over each tile of logits."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.contrastive import device
from kernels.contrastive.launches import Blocks, blocks
from kernels.contrastive.products import accumulate, scaled
from kernels.contrastive.tiles import Tile, dots, keeps, kept, largest, strips
from kernels.tuned import tuned


def forward(
    image: Tensor, texts: Tensor, logit_scale: Tensor, offset: int, chunk_bytes: int, budget: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `reference.forward`."""
    image, texts, scale = image.contiguous(), texts.contiguous(), logit_scale.float()
    rows, columns = image.shape[0], texts.shape[0]
    bands = strips(rows, columns, chunk_bytes, torch.float32.itemsize)
    keep = keeps(rows, columns, budget, torch.float32.itemsize)
    logits = scale.new_empty(rows * columns if keep else 0)
    scratch = scale.new_empty(0 if keep else largest(bands))
    row, column, diagonal = scale.new_empty(2, rows), scale.new_empty(2, columns), scale.new_empty(rows)
    shared = blocks("clip_forward", image, texts)
    for band in bands:
        row_pairs, column_pairs = _parts(band, shared, columns, scale)
        first_block = 0
        for tile in band:
            d = dots(image, texts, tile, logits[tile.start :] if keep else scratch)
            device.clip_forward[shared.grid(tile)](
                d,
                scale,
                row_pairs,
                column_pairs,
                diagonal,
                tile.rows,
                tile.columns,
                columns,
                row_pairs.shape[1],
                tile.first_row,
                tile.first_column,
                first_block,
                tile.shift(offset),
                **shared.options,
            )
            first_block += shared.grid(tile)[0]
        _join(row_pairs, row, band[0].first_row, is_first=True, is_last=True)
        _join(column_pairs, column, 0, is_first=band is bands[0], is_last=band is bands[-1])
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
    """As `reference.backward`."""
    image, texts, scale = image.contiguous(), texts.contiguous(), logit_scale.float()
    row, column = row.contiguous(), column.contiguous()
    rows, columns = image.shape[0], texts.shape[0]
    need_image, need_texts, need_scale = needs
    factor = grad.float() / (2 * max(rows, 1))
    by_logit = factor * scale
    bands = strips(rows, columns, chunk_bytes, torch.float32.itemsize)
    shared = blocks("clip_backward", image, texts)
    cells, keep = largest(bands), logits.numel() > 0
    scratch = scale.new_empty(0 if keep else cells)
    # A tile that is made again may be written over by its gradient.
    in_place = image.dtype == torch.float32 and not keep
    gradient = scratch if in_place else image.new_empty(cells)
    of_image = image.new_empty(image.shape if need_image else 0)
    text_sums = scale.new_zeros(texts.shape) if need_texts and not bands else None
    if need_texts and text_sums is None:
        text_sums = scale.new_empty(texts.shape)
    scale_parts = scale.new_empty(sum(shared.count(t) for band in bands for t in band) if need_scale else 0)
    first_part = 0
    for band in bands:
        band_sums = scale.new_empty(band[0].rows if need_image else 0, image.shape[1])
        for tile in band:
            d = kept(logits, tile) if keep else dots(image, texts, tile, scratch)
            g = gradient[: tile.cells].view(tile.rows, tile.columns)
            device.clip_backward[shared.grid(tile)](
                d,
                scale,
                row,
                column,
                g,
                scale_parts,
                tile.rows,
                tile.columns,
                rows,
                columns,
                tile.first_row,
                tile.first_column,
                first_part,
                tile.shift(offset),
                WITH_SCALE=need_scale,
                **shared.options,
            )
            first_part += shared.count(tile)
            if need_image:
                accumulate(g, tile.of_texts(texts), onto=band_sums, first=tile is band[0])
            if text_sums is not None:
                own = tile.of_texts(text_sums)
                accumulate(g.T, tile.of_image(image), onto=own, first=band is bands[0])
        if need_image:
            torch.mul(band_sums, by_logit, out=band[0].of_image(of_image))
    gradients = [of_image] if need_image else []
    if text_sums is not None:
        whole = rows == columns
        gradients.append(scaled(text_sums, by_logit, texts.dtype) if whole else text_sums.mul_(by_logit))
    if need_scale:
        gradients.append((scale_parts.sum() * factor).to(logit_scale.dtype))
    return gradients


def _parts(band: list[Tile], shared: Blocks, columns: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the pairs of every block of a band: of its rows, and of its columns."""
    across = sum(shared.grid(tile)[0] for tile in band)
    down = shared.grid(band[0])[1]
    return like.new_empty(2, across, band[0].rows), like.new_empty(2, down, columns)


def _join(pairs: Tensor, joined: Tensor, first: int, *, is_first: bool, is_last: bool) -> None:
    _, parts, length = pairs.shape
    default = {"BLOCK_PARTS": 16, "BLOCK": 64, "num_warps": 4}
    options = tuned("contrastive.join", {"parts": parts, "length": length}, default)
    device.join[(-(-length // options["BLOCK"]),)](
        pairs,
        joined,
        parts,
        length,
        joined.shape[1],
        first,
        IS_FIRST=is_first,
        IS_LAST=is_last,
        **options,
    )

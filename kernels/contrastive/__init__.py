"""The doors of the contrastive losses: what engine code calls, with their autograd. Know no maths."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from kernels.contrastive import op, ranks, statistics
from kernels.contrastive.checks import check

__all__ = ["clip_loss", "siglip_loss"]

#: Of logits in memory at a time: tiles of 4096 x 4096, which give each matrix product a GPU's worth of blocks.
_CHUNK_BYTES = 64 << 20


def clip_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    *,
    chunk_bytes: int = _CHUNK_BYTES,
    logits_budget: int = 1 << 30,
    group: ProcessGroup | None = None,
) -> Tensor:
    """The symmetric InfoNCE loss of CLIP (arXiv:2103.00020), without the [rows, rows] logits: a scalar.

        s[i, j] = logit_scale * (image[i] @ text[j])
        loss = mean over i of (logsumexp(s[i, :]) + logsumexp(s[:, i])) / 2 - s[i, i]

    image, text    [rows, width] of one dtype, row i of one matching row i of the other; nothing is
                   normalised here
    logit_scale    the factor itself, of shape []: already the exponential, where its log is learned
    chunk_bytes    about what is taken of memory for logits at a time
    logits_budget  if all logits fit in as many bytes they are kept for the backward, which is faster; else they
                   are made again there. The memory is then that of the features, whatever the number of pairs
    group          processes that hold rows of their own, equally many each: the loss is over the rows of all of
                   them. See below

    The loss is float32 (float64 for float64), and so are logits and sums. 0 for no rows. NaN in a row is seen in
    the loss. Inputs that require no gradient cost none. Equal calls give equal bits.

    With a group every process calls this at the same time and gets the same loss. The gradients of its rows are
    those of the loss times the number of processes, and that of logit_scale is the loss's own, the same
    everywhere: after DistributedDataParallel's averaging all parameters have the gradients of a single
    process with all rows. Inputs require gradients on all processes or on none, and the loss is used alike.

    Raises ValueError for arguments that do not fit together, and RuntimeError on a second derivative.
    """
    image, text = _under_autocast(image), _under_autocast(text)
    sizes = {"chunk_bytes": chunk_bytes, "logits_budget": logits_budget}
    check(image, text, {"logit_scale": logit_scale}, sizes)
    budget = logits_budget if any(_needs(image, text, logit_scale)) else -1
    loss: Tensor = _ClipLoss.apply(chunk_bytes, budget, group, image, text, logit_scale)
    return loss


def siglip_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    chunk_bytes: int = _CHUNK_BYTES,
    logits_budget: int = 1 << 30,
    group: ProcessGroup | None = None,
) -> Tensor:
    """The pairwise sigmoid loss of SigLIP (arXiv:2303.15343), without the [rows, rows] logits: a scalar.

        s[i, j] = logit_scale * (image[i] @ text[j]) + logit_bias
        loss = sum over i, j of softplus(-s[i, j] if i == j else s[i, j]) / rows

    logit_bias is of shape []. `logits_budget` is there so that both losses take the same options: no logits are
    ever kept, for the gradients are made in the forward, in float32, and only scaled in the backward. Under
    `torch.no_grad()` none are made. All else is as for `clip_loss`; the gradient of logit_bias is treated as
    that of logit_scale.
    """
    image, text = _under_autocast(image), _under_autocast(text)
    sizes = {"chunk_bytes": chunk_bytes, "logits_budget": logits_budget}
    check(image, text, {"logit_scale": logit_scale, "logit_bias": logit_bias}, sizes)
    needs = _needs(image, text, logit_scale, logit_bias)
    loss: Tensor = _SiglipLoss.apply(chunk_bytes, needs, group, image, text, logit_scale, logit_bias)
    return loss


def _needs(*inputs: Tensor) -> list[bool]:
    return [torch.is_grad_enabled() and tensor.requires_grad for tensor in inputs]


def _under_autocast(tensor: Tensor) -> Tensor:
    """What autocast hands to a matrix product: floating point in autocast's dtype, save for float64."""
    device = tensor.device.type
    eligible = tensor.is_floating_point() and tensor.dtype != torch.float64
    if not eligible or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def _refuse_second_derivative(name: str) -> None:
    # Grad mode is on in a backward only under create_graph, whose result would lack this op's part in silence.
    if torch.is_grad_enabled():
        raise RuntimeError(f"{name} has no second derivative; do not use create_graph=True")


class _ClipLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        chunk_bytes: int,
        budget: int,
        group: ProcessGroup | None,
        image: Tensor,
        text: Tensor,
        logit_scale: Tensor,
    ) -> Tensor:
        texts, offset = ranks.gathered(text, group), ranks.offset(text, group)
        row, column, diagonal, logits = op.clip_forward(
            image, texts, logit_scale, offset, chunk_bytes, budget
        )
        column = ranks.joined(column, group)
        ctx.save_for_backward(row, column, logits, image, texts, logit_scale)
        ctx.offset, ctx.chunk_bytes, ctx.group = offset, chunk_bytes, group
        own = column[:, offset : offset + image.shape[0]]
        return ranks.mean(statistics.clip(row, own, diagonal), group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative("clip_loss")
        *_, logit_scale = saved = ctx.saved_tensors
        needs = ctx.needs_input_grad[3:]
        made = iter(op.clip_backward(grad, *saved, ctx.offset, ctx.chunk_bytes, needs))
        of_image, of_texts, of_scale = (next(made) if needed else None for needed in needs)
        if of_texts is not None:
            of_texts = ranks.own_sums(of_texts, ctx.group).to(saved[3].dtype)
        if of_scale is not None:
            of_scale = ranks.mean(of_scale, ctx.group).to(logit_scale.dtype)
        return None, None, None, of_image, of_texts, of_scale


class _SiglipLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        chunk_bytes: int,
        needs: list[bool],
        group: ProcessGroup | None,
        image: Tensor,
        text: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor,
    ) -> Tensor:
        texts, offset = ranks.gathered(text, group), ranks.offset(text, group)
        loss, of_image, of_texts, of_scale, of_bias = op.siglip_forward(
            image, texts, logit_scale, logit_bias, offset, chunk_bytes, needs
        )
        if needs[1]:
            of_texts = ranks.own_sums(of_texts, group)
        ctx.save_for_backward(of_image, of_texts, of_scale, of_bias, logit_scale, logit_bias)
        ctx.rows, ctx.dtype, ctx.group = image.shape[0], image.dtype, group
        return ranks.mean(loss / max(image.shape[0], 1), group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative("siglip_loss")
        needs = ctx.needs_input_grad[3:]
        made = iter(op.siglip_backward(grad, *ctx.saved_tensors, ctx.rows, ctx.dtype, needs))
        of_image, of_text, of_scale, of_bias = (next(made) if needed else None for needed in needs)
        of_scale, of_bias = (
            None if scalar is None else ranks.mean(scalar, ctx.group) for scalar in (of_scale, of_bias)
        )
        return None, None, None, of_image, of_text, of_scale, of_bias

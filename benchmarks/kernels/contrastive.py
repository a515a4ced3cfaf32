"""The contrastive losses: a training step's loss and gradients over large batches of features."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from benchmarks.kernels.problem import Problem
from kernels import clip_loss, siglip_loss

_WIDTH = 512


def _inputs(rows: int, *scalars: float) -> Callable[[], Sequence[Tensor]]:
    def make() -> Sequence[Tensor]:
        image, text = (
            functional.normalize(torch.randn(rows, _WIDTH, device="cuda"), dim=1)
            .to(torch.bfloat16)
            .requires_grad_()
            for _ in range(2)
        )
        learned = [torch.tensor(number, device="cuda").requires_grad_() for number in scalars]
        return [image, text, *learned]

    return make


def _eager_clip(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """As open_clip has it under autocast: products in bf16, cross entropies in float32."""
    logits = scale * (image @ text.T).float()
    matching = torch.arange(len(image), device=image.device)
    return (functional.cross_entropy(logits, matching) + functional.cross_entropy(logits.T, matching)) / 2


def _eager_siglip(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    logits = scale * (image @ text.T).float() + bias
    signs = 2 * torch.eye(len(image), device=image.device) - 1
    return -functional.logsigmoid(signs * logits).sum() / len(image)


def _chunked_clip(chunk: int) -> Callable[..., Tensor]:
    """Rows in chunks whose logits are made again in the backward."""

    def of_chunk(image: Tensor, text: Tensor, scale: Tensor, first: int) -> tuple[Tensor, Tensor]:
        logits = scale * (image @ text.T).float()
        rows = logits.logsumexp(1) - 2 * logits.diagonal(first)
        return rows.sum(), logits.logsumexp(0)

    def loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        parts = [
            checkpoint(of_chunk, own, text, scale, i * chunk, use_reentrant=False, preserve_rng_state=False)
            for i, own in enumerate(image.split(chunk))
        ]
        rows = torch.stack([part[0] for part in parts]).sum()
        columns = torch.stack([part[1] for part in parts]).logsumexp(0).sum()
        return (rows + columns) / (2 * len(image))

    return loss


def _chunked_siglip(chunk: int) -> Callable[..., Tensor]:
    def of_chunk(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, first: int) -> Tensor:
        logits = scale * (image @ text.T).float() + bias
        return functional.softplus(logits).sum() - logits.diagonal(first).sum()

    def loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        parts = [
            checkpoint(
                of_chunk, own, text, scale, bias, i * chunk, use_reentrant=False, preserve_rng_state=False
            )
            for i, own in enumerate(image.split(chunk))
        ]
        return torch.stack(parts).sum() / len(image)

    return loss


def _floor(rows: int) -> dict[str, dict[str, float]]:
    """Features and gradients once through memory; one product forward, and one for each side's gradient."""
    features, product = 2 * rows * _WIDTH * 2, 2 * rows * rows * _WIDTH
    return {
        "bytes": {"fwd": features, "full": 3 * features},
        "flops": {"fwd": product, "full": 3 * product},
    }


def _clip(rows: int, chunk: int, estimate: dict[str, float], too_large_for: Sequence[str] = ()) -> Problem:
    return Problem(
        op="clip_loss",
        label=f"N={rows} D={_WIDTH} bf16",
        make=_inputs(rows, 14.0),
        eager=_eager_clip,
        smart=_chunked_clip(chunk),
        ours=clip_loss,
        estimate=estimate,
        too_large_for=too_large_for,
        **_floor(rows),
    )


def _siglip(rows: int, chunk: int) -> Problem:
    return Problem(
        op="siglip_loss",
        label=f"N={rows} D={_WIDTH} bf16",
        make=_inputs(rows, 10.0, -10.0),
        eager=_eager_siglip,
        smart=_chunked_siglip(chunk),
        ours=siglip_loss,
        **_floor(rows),
    )


PROBLEMS: list[Problem] = [
    _clip(8192, 2048, {}),
    _clip(32768, 4096, {"eager": 24552, "compile": 7083, "ours": 7800}),
    # In chunks of 1024 rows the chunked one takes about 3 GB.
    _clip(131072, 1024, {}, too_large_for=("eager", "compile", "max-autotune")),
    _siglip(8192, 2048),
    _siglip(32768, 4096),
]

TUNED_ON: list[Problem] = [PROBLEMS[1], PROBLEMS[4]]


def _blocks(*shapes: tuple[int, int, int]) -> list[dict[str, int]]:
    return [
        {"BLOCK_ROWS": rows, "BLOCK_COLUMNS": columns, "num_warps": warps} for rows, columns, warps in shapes
    ]


TUNABLE: dict[str, list[dict[str, int]]] = {
    "contrastive.clip_forward": _blocks(
        (32, 256, 4), (32, 256, 8), (64, 128, 4), (64, 256, 8), (16, 512, 4), (32, 512, 8), (64, 128, 8)
    ),
    "contrastive.clip_backward": _blocks(
        (16, 256, 8), (16, 256, 4), (8, 512, 8), (8, 256, 4), (32, 128, 8), (16, 512, 8), (32, 256, 8)
    ),
    "contrastive.siglip": _blocks(
        (16, 256, 8), (16, 256, 4), (8, 512, 8), (8, 256, 4), (32, 128, 8), (16, 512, 8), (32, 256, 8)
    ),
}

"""What the ops are worth in a whole training step, and what share of the step they are."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.kernels.timing import host_us, peak_mb
from engine.models.fusion import FUSIONS
from kernels import clip_loss, dispatch

Row = dict[str, Any]
WIDTHS, DIM, CLASSES = (768, 512, 768), 512, 100


def rows(*, large: bool) -> Iterator[Row]:
    """Steps on cached features, then contrastive steps with growing batches."""
    for fusion in ("concat", "gated", "mean"):
        for batch in (64, 4096):
            yield from _cached_features(fusion, batch)
    for batch in (4096, 32768, *((131072,) if large else ())):
        yield from _contrastive(batch)


def _cached_features(fusion: str, batch: int) -> Iterator[Row]:
    """Frozen towers' vectors from the cache -> fusion -> linear head -> AdamW, in bf16 autocast."""
    model = FUSIONS[fusion](WIDTHS, DIM, 0.0).cuda()
    head = nn.Linear(DIM, CLASSES).cuda()
    optimiser = torch.optim.AdamW([*model.parameters(), *head.parameters()], fused=True)
    pooled = [torch.randn(batch, width, device="cuda") for width in WIDTHS]
    present = torch.rand(batch, len(WIDTHS), device="cuda") > 0.2
    target = torch.randint(0, CLASSES, (batch,), device="cuda")

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = functional.cross_entropy(head(model(pooled, present)), target)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    def fused() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            model(pooled, present).float().sum().backward()
        optimiser.zero_grad()

    yield from _both(f"cached features, {fusion}", batch, step, fused)


def _contrastive(batch: int) -> Iterator[Row]:
    """Two linear projections of cached features -> clip_loss -> AdamW, in bf16 autocast."""
    image, text = nn.Linear(768, DIM).cuda(), nn.Linear(512, DIM).cuda()
    scale = nn.Parameter(torch.tensor(2.6, device="cuda"))
    optimiser = torch.optim.AdamW([*image.parameters(), *text.parameters(), scale], fused=True)
    pictures, texts = torch.randn(batch, 768, device="cuda"), torch.randn(batch, 512, device="cuda")

    def vectors() -> tuple[Tensor, Tensor]:
        return functional.normalize(image(pictures), dim=1), functional.normalize(text(texts), dim=1)

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            one, other = vectors()
        clip_loss(one.bfloat16(), other.bfloat16(), scale.exp()).backward()
        optimiser.step()
        optimiser.zero_grad()

    fixed = [vector.detach().bfloat16().requires_grad_() for vector in vectors()]

    def fused() -> None:
        clip_loss(fixed[0], fixed[1], scale.exp()).backward()

    yield from _both("contrastive", batch, step, fused)


def _both(step_of: str, batch: int, step: Callable[[], None], fused: Callable[[], None]) -> Iterator[Row]:
    for backend in ("torch", "triton"):
        with dispatch.using(backend):
            peak = peak_mb(step)
            whole, part = _synchronous_us(step), _synchronous_us(fused)
        yield {
            "step": step_of,
            "batch": batch,
            "backend": backend,
            "us": round(whole, 1),
            "fusion_us": round(part, 1),
            "fusion_share": round(part / whole, 3),
            "peak_mb": round(peak, 1),
        }


def _synchronous_us(call: Callable[[], None]) -> float:
    """Wall time of one step with its host part, as training sees it."""

    def whole() -> None:
        call()
        torch.cuda.synchronize()

    for _ in range(3):
        whole()
    return host_us(whole)

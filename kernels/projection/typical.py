"""The launches of the masked projection that jobs make most: to warm a worker up, and to compile ahead of time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from kernels.projection import triton

#: Three towers.
_WIDTHS, _OUTPUTS = [768, 768, 512], 1024


def typical(device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A label, and what makes the launches of that case, forward and backward."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        yield f"fusion layer, {name}", _fusion_layer(device, dtype, rows=256)
    yield "fusion layer of one row", _fusion_layer(device, torch.bfloat16, rows=1)
    yield "fusion layer of a bool mask", _fusion_layer(device, torch.bfloat16, rows=256, mask=torch.bool)
    yield "a few rows", _case(device, rows=32)
    yield "a few rows, missing modalities", _case(device, rows=32, mask=torch.bool, activation="relu")
    yield "large batch", _case(device, rows=2048)
    yield "large batch, missing modalities", _case(device, rows=2048, mask=torch.bool, norm=True)
    yield "large batch, weighted mean", _case(device, rows=2048, mask=torch.float32, mean=True, norm=True)
    yield "frozen towers", _case(device, rows=2048, mask=torch.bool, activation="silu", needs_xs=False)


def _fusion_layer(
    device: str, dtype: torch.dtype, rows: int, mask: torch.dtype = torch.float32
) -> Callable[[], Any]:
    """As a job's model calls it: a last modality says which of the others are missing."""
    widths = [*_WIDTHS, len(_WIDTHS)]
    return _case(device, dtype, rows=rows, widths=widths, mask=mask, norm=True, activation="gelu")


def _case(
    device: str,
    dtype: torch.dtype = torch.bfloat16,
    *,
    rows: int,
    widths: Sequence[int] = _WIDTHS,
    mask: torch.dtype | None = None,
    mean: bool = False,
    norm: bool = False,
    activation: str = "none",
    needs_xs: bool = True,
) -> Callable[[], Any]:
    def run() -> None:
        xs = [torch.ones(rows, width, dtype=dtype, device=device) for width in widths]
        weight = torch.ones(_OUTPUTS, sum(widths), dtype=dtype, device=device)
        vector = torch.ones(_OUTPUTS, device=device)
        counts = None if mask is None else torch.ones(rows, len(xs), dtype=mask, device=device)
        norms = (vector, vector) if norm else (None, None)
        arguments: list[Any] = [xs, weight, vector, counts, mean, *norms, 1e-5, activation]
        y, z = triton.forward(*arguments)
        needs = [True, True, norm, norm, *[needs_xs] * len(xs)]
        triton.backward(torch.ones_like(y), z, *[*arguments, needs])

    return run

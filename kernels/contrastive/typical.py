"""The launches that jobs make most, for the worker's warm-up and for compilation ahead of time."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from kernels.contrastive.clip import triton as clip
from kernels.contrastive.siglip import triton as siglip

#: Small: a kernel is compiled for dtypes and divisible sizes, and the products are really made.
_ROWS, _WIDTH = 512, 32
_WHOLE, _TILES = 64 << 20, 4 * 256 * 256


def typical(device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Labelled runs of forward and backward: both losses in each dtype, logits kept and made again."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        yield f"clip {name}", partial(_clip, device, dtype, _WHOLE, budget=1 << 30)
        yield f"siglip {name}", partial(_siglip, device, dtype, [True] * 4)
    yield "clip in tiles", partial(_clip, device, torch.bfloat16, _TILES, budget=0)
    yield "clip, scale frozen", partial(_clip, device, torch.bfloat16, _TILES, budget=0, scale=False)
    yield "siglip, scale and bias frozen", lambda: _siglip(device, torch.bfloat16, [True, True, False, False])
    yield "siglip without gradients", partial(_siglip, device, torch.bfloat16, [False] * 4)


def _clip(device: str, dtype: torch.dtype, chunk_bytes: int, budget: int, scale: bool = True) -> None:
    image, texts = (torch.zeros(_ROWS, _WIDTH, dtype=dtype, device=device) for _ in range(2))
    one = torch.ones((), device=device)
    row, column, _, logits = clip.forward(image, texts, one, 0, chunk_bytes, budget)
    clip.backward(one, row, column, logits, image, texts, one, 0, chunk_bytes, [True, True, scale])


def _siglip(device: str, dtype: torch.dtype, needs: list[bool]) -> None:
    image, texts = (torch.zeros(_ROWS, _WIDTH, dtype=dtype, device=device) for _ in range(2))
    one = torch.ones((), device=device)
    made = siglip.forward(image, texts, one, one, 0, _WHOLE, needs)
    siglip.backward(one, *made[1:], one, one, _ROWS, dtype, needs)

"""The launches of the combining kernels that jobs make most."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from kernels.combine import triton

#: Mode, gates by entry, with a norm, activation.
_FORMS = [
    ("sum", False, False, "none"),
    ("mean", False, True, "gelu"),
    ("max", False, False, "none"),
    ("gated", False, False, "none"),
    ("gated", True, True, "gelu"),
]


def typical(device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Labelled cases; each, when run, launches the forward and the backward of one."""
    for dtype, forms in ((torch.float32, _FORMS), (torch.bfloat16, _FORMS), (torch.float16, _FORMS[3:4])):
        for mode, by_entry, norm, activation in forms:
            label = f"{mode}{' by entry' * by_entry}{' norm' * norm} {activation} {dtype}"
            yield label, _case(device, dtype, mode, by_entry, norm, activation)


def _case(
    device: str, dtype: torch.dtype, mode: str, by_entry: bool, norm: bool, activation: str
) -> Callable[[], Any]:
    rows, modalities, width = 64, 3, 512

    def run() -> list[Tensor]:
        def new(*shape: int) -> Tensor:
            return torch.ones(shape, dtype=dtype, device=device)

        xs = [new(rows, width) for _ in range(modalities)]
        mask = torch.ones(rows, modalities, dtype=torch.bool, device=device)
        gates = new(rows, modalities, width) if by_entry else new(rows, modalities)
        options = (
            mask,
            gates if mode == "gated" else None,
            mode,
            new(width) if norm else None,
            new(width) if norm else None,
            1e-5,
            activation,
        )
        grad = triton.forward(xs[0], xs[1:], *options)
        return triton.backward(grad, xs, *options, [True] * (3 + modalities))

    return run

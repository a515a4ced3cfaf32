"""The launches of token pooling that jobs make most: compiled before they are needed, and by the tests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.token_pool import triton


@dataclass(frozen=True)
class _Case:
    dtype: torch.dtype
    mode: str = "mean"
    rows: int = 64
    most: int = 197
    width: int = 768
    packed: bool = False
    norm: bool = True
    l2: bool = False

    @property
    def label(self) -> str:
        flags = [name for name in ("packed", "norm", "l2") if getattr(self, name)]
        sizes = f"{self.rows}x{self.most}x{self.width}"
        return " ".join([self.mode, str(self.dtype).removeprefix("torch."), sizes, *flags])


_CASES = (
    *(_Case(dtype, l2=True) for dtype in (torch.float32, torch.float16, torch.bfloat16)),
    _Case(torch.bfloat16, norm=False),
    _Case(torch.bfloat16, packed=True),
    _Case(torch.bfloat16, "max"),
    _Case(torch.float32, "max", norm=False),
    _Case(torch.bfloat16, "cls"),
)
_WIDE = (
    _Case(torch.bfloat16, rows=2048, most=16, width=1000),
    *(_Case(torch.bfloat16, mode, rows=8, most=1500) for mode in ("mean", "max")),
    *(
        _Case(dtype, mode, width=width, l2=True)
        for dtype in (torch.float32, torch.bfloat16)
        for mode in ("mean", "max", "cls")
        for width in (384, 1024, 1280, 2048, 8192)
    ),
)


def typical(device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Labels, and what makes one forward and one backward each."""
    return ((case.label, _launches(case, device)) for case in _CASES)


def rare(device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Other widths, to see that they compile well too."""
    return ((case.label, _launches(case, device)) for case in _WIDE)


def _launches(case: _Case, device: str) -> Callable[[], None]:
    def run() -> None:
        tokens = torch.zeros(case.rows, case.most, case.width, dtype=case.dtype, device=device)
        lengths: Tensor | None = torch.full((case.rows,), case.most, device=device)
        bounds = None
        if case.packed:
            bounds = torch.arange(case.rows + 1, device=device) * case.most
            tokens, lengths = tokens.flatten(0, 1), None
        norm = torch.ones(case.width, dtype=case.dtype, device=device) if case.norm else None
        given = (tokens, lengths, bounds, norm, norm, 1e-5, case.mode, case.l2)
        y, pooled, places = triton.forward(*given)
        triton.backward(y, pooled, places, *given, [True, case.norm, case.norm])

    return run

"""Combining modalities: gated, and mean with LayerNorm and GELU, in small and large batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.problem import Problem
from kernels import combine_modalities

MODALITIES, WIDTH = 3, 512


def _inputs(rows: int, gates: str, norm: bool) -> list[Any]:
    """Modalities as one list, mask, gates, norm's weight and bias; the mask has a fifth of all entries absent."""

    def new(*shape: int) -> Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16).requires_grad_()

    shape = {"modality": (rows, MODALITIES), "entry": (rows, MODALITIES, WIDTH)}.get(gates)
    return [
        [new(rows, WIDTH) for _ in range(MODALITIES)],
        torch.rand(rows, MODALITIES, device="cuda") > 0.2,
        new(*shape) if shape else None,
        new(WIDTH) if norm else None,
        new(WIDTH) if norm else None,
    ]


def _eager(xs: Sequence[Tensor], mask: Tensor, gates: Tensor | None, weight: Any, bias: Any) -> Tensor:
    stacked = torch.stack(list(xs), dim=1)
    present = mask.unsqueeze(2)
    clean = torch.where(present, stacked, 0)
    if gates is None:
        z = clean.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    else:
        logits = (gates if gates.ndim == 3 else gates.unsqueeze(2)).float()
        lowest = torch.finfo(torch.float32).min
        shares = torch.where(present, torch.where(present, logits, lowest).softmax(1), 0)
        z = (shares.to(clean.dtype) * clean).sum(1)
    return z if weight is None else functional.gelu(functional.layer_norm(z, (WIDTH,), weight, bias))


def _smart(xs: Sequence[Tensor], mask: Tensor, gates: Tensor | None, weight: Any, bias: Any) -> Tensor:
    """Without a stack: one modality after the other is added."""
    if gates is None:
        shares = mask / mask.sum(1, keepdim=True).clamp(min=1)
    else:
        present = mask if gates.ndim == 2 else mask.unsqueeze(2)
        shares = torch.where(present, gates.float(), torch.finfo(torch.float32).min).softmax(1) * present
    z: Any = 0
    for m, x in enumerate(xs):
        share = shares[:, m] if shares.ndim == 3 else shares[:, m : m + 1]
        z = (
            torch.addcmul(z, torch.where(mask[:, m : m + 1], x, 0), share.to(x.dtype))
            if m
            else (torch.where(mask[:, m : m + 1], x, 0) * share.to(x.dtype))
        )
    return z if weight is None else functional.gelu(functional.layer_norm(z, (WIDTH,), weight, bias))


def _ours(xs: Sequence[Tensor], mask: Tensor, gates: Tensor | None, weight: Any, bias: Any) -> Tensor:
    return combine_modalities(
        xs,
        mask=mask,
        mode="mean" if gates is None else "gated",
        gates=gates,
        norm_weight=weight,
        norm_bias=bias,
        activation="none" if weight is None else "gelu",
    )


def _problem(rows: int, gates: str, norm: bool, estimate: dict[str, float]) -> Problem:
    entries = rows * WIDTH
    # A fifth of the entries is absent and need not be read; their gradients are written all the same.
    read = 0.8 * MODALITIES * entries
    of_gates = {"": 0, "modality": rows * MODALITIES, "entry": entries * MODALITIES}[gates]
    forward = 2 * (read + of_gates + entries)
    backward = 2 * (read + of_gates + entries + MODALITIES * entries + of_gates)
    name = {"": "mean", "modality": "gated", "entry": "gated by entry"}[gates]
    return Problem(
        op="combine",
        label=f"{name}{' LN GELU' * norm} B={rows} H={WIDTH} M={MODALITIES} bf16",
        make=lambda: _inputs(rows, gates, norm),
        eager=_eager,
        smart=_smart,
        ours=_ours,
        bytes={"fwd": forward, "full": forward + backward},
        estimate=estimate,
    )


PROBLEMS = [
    _problem(64, "entry", norm=False, estimate={"eager": 99, "compile": 18, "ours": 8}),
    _problem(64, "", norm=True, estimate={}),
    _problem(65536, "modality", norm=False, estimate={}),
    _problem(65536, "entry", norm=False, estimate={}),
    _problem(65536, "", norm=True, estimate={}),
]

TUNED_ON = [PROBLEMS[0], *PROBLEMS[2:]]

TUNABLE: dict[str, list[dict[str, int]]] = {
    "combine.forward": [
        {"ROWS": 1, "num_warps": 1},
        {"ROWS": 1, "num_warps": 4},
        {"ROWS": 2, "num_warps": 4},
        {"ROWS": 4, "num_warps": 4},
        {"ROWS": 4, "num_warps": 8},
        {"ROWS": 8, "num_warps": 8},
    ],
    "combine.backward": [
        {"ROWS": 1, "num_warps": 2, "PROGRAMS": 65536},
        {"ROWS": 1, "num_warps": 2, "PROGRAMS": 1056},
        {"ROWS": 2, "num_warps": 4, "PROGRAMS": 1056},
        {"ROWS": 2, "num_warps": 4, "PROGRAMS": 32768},
        {"ROWS": 4, "num_warps": 4, "PROGRAMS": 528},
        {"ROWS": 4, "num_warps": 8, "PROGRAMS": 1056},
        {"ROWS": 4, "num_warps": 4, "PROGRAMS": 16384},
    ],
}

"""How far a regression's answers are off, in the data's own unit."""

from typing import Any

import torch
from torch import Tensor

from engine.data.targets import Scale
from engine.report.headline import spread

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BINS = 20
#: Points of a picture.
_POINTS = 400


def residuals(scale: Scale, outputs: Tensor, targets: Tensor) -> dict[str, Any] | None:
    """`outputs` [rows, 1] and `targets` [rows] standardised. A residual is predicted minus true.

    `rows` are those whose residual is finite, and all numbers are of them; None if there are none.
    """
    finite = outputs.squeeze(1).isfinite() & targets.isfinite()
    outputs, targets = outputs[finite], targets[finite]
    if not len(targets):
        return None
    said, true = scale.undone(outputs.squeeze(1)), scale.undone(targets)
    # The difference of standardised numbers keeps the digits that a large mean would eat.
    off = (outputs.squeeze(1).double() - targets.double()) * scale.std
    chosen = spread(len(off), _POINTS)
    return {
        "rows": len(off),
        "mean": off.mean().item(),
        "std": off.std(correction=0).item(),
        "quantiles": _quantiles(off),
        "absolute_quantiles": _quantiles(off.abs()),
        "histogram": _histogram(off),
        "points": [[t, p] for t, p in zip(true[chosen].tolist(), said[chosen].tolist(), strict=True)],
    }


def _quantiles(values: Tensor) -> dict[str, float]:
    at = torch.tensor(_QUANTILES, dtype=torch.double)
    # Of larger tensors torch knows no quantiles.
    found = values[spread(len(values), 1_000_000)].quantile(at).tolist()
    return {f"{q:g}": value for q, value in zip(_QUANTILES, found, strict=True)}


def _histogram(values: Tensor) -> dict[str, Any]:
    low, high = values.min().item(), values.max().item()
    if low == high:
        return {"edges": [low, high], "counts": [len(values)]}
    counts = torch.histc(values, _BINS, low, high).long().tolist()
    return {"edges": torch.linspace(low, high, _BINS + 1, dtype=torch.double).tolist(), "counts": counts}

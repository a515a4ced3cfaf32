"""Whether probabilities are what they say: reliability bins, the expected calibration error, the best temperature."""

import math
from collections.abc import Callable
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from domain.tasks import Task
from engine.report.headline import spread

#: As torchmetrics' ece, which is a metric of every job.
BINS = 15
#: Of temperatures that are looked at; a best one at an end is none.
_COLDEST, _HOTTEST = 0.02, 50.0
#: Logits that are looked at, and that a temperature is chosen by: of more, rows are taken evenly.
_MOST_LOGITS, _MOST_TRIED = 20_000_000, 2_000_000


def calibration(task: Task, logits: Tensor, targets: Tensor) -> dict[str, Any]:
    """Of a classification's likeliest class, or of each label of each row. logits [rows, classes]"""
    logits, targets = _taken(logits, targets, _MOST_LOGITS)
    certain, right = (
        _of_classes(logits, targets) if task is Task.CLASSIFICATION else _of_labels(logits, targets)
    )
    bins = reliability(certain, right)
    return {
        "of": "likeliest class" if task is Task.CLASSIFICATION else "each label of each row",
        "count": len(certain),
        "bins": bins,
        "ece": expected_error(bins),
        "temperature": best_temperature(task, *_taken(logits, targets, _MOST_TRIED)),
    }


def _taken(logits: Tensor, targets: Tensor, most: int) -> tuple[Tensor, Tensor]:
    rows = spread(len(logits), max(2, most // logits.shape[1]))
    return logits[rows], targets[rows]


def _of_classes(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    certain, said = logits.double().softmax(1).max(1)
    return certain, said == targets


def _of_labels(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return logits.double().sigmoid().flatten(), targets.flatten()


def reliability(certain: Tensor, right: Tensor) -> list[dict[str, float]]:
    """Bins of equal width over 0 to 1: how many are in each, their mean probability, and how often it was so."""
    place = (certain * BINS).long().clamp(max=BINS - 1)
    counts = torch.bincount(place, minlength=BINS)
    sums = torch.bincount(place, certain, minlength=BINS)
    hits = torch.bincount(place, right.double(), minlength=BINS)
    return [
        {
            "from": i / BINS,
            "to": (i + 1) / BINS,
            "count": count,
            "confidence": sums[i].item() / count,
            "accuracy": hits[i].item() / count,
        }
        for i, count in enumerate(counts.tolist())
        if count
    ]


def expected_error(bins: list[dict[str, float]]) -> float:
    """ECE (Naeini et al. 2015): the bins' gaps between probability and frequency, weighed by their counts."""
    total = sum(b["count"] for b in bins)
    return math.fsum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / total


def best_temperature(task: Task, logits: Tensor, targets: Tensor) -> dict[str, float] | None:
    """What the logits divided by would have the smallest log loss (Guo et al. 2017, arXiv:1706.04599).

    None where there is no best one: when every row is right, ever colder is ever better.
    """
    loss = _log_loss(task, logits, targets)
    bounds = (math.log(_COLDEST), math.log(_HOTTEST))
    found = minimize_scalar(
        lambda t: loss(math.exp(t)), bounds=bounds, method="bounded", options={"xatol": 1e-3}
    )
    if min(map(loss, (_COLDEST, _HOTTEST))) <= found.fun + 1e-9:
        return None
    best = math.exp(found.x)
    scaled = _of_classes if task is Task.CLASSIFICATION else _of_labels
    ece = expected_error(reliability(*scaled(logits / best, targets)))
    return {"best": best, "log_loss": loss(best), "log_loss_now": loss(1.0), "ece": ece}


def _log_loss(task: Task, logits: Tensor, targets: Tensor) -> Callable[[float], float]:
    logits = logits.double()
    if task is Task.CLASSIFICATION:
        return lambda t: F.cross_entropy(logits / t, targets).item()
    return lambda t: F.binary_cross_entropy_with_logits(logits / t, targets.double()).item()

"""How good a classifier is on some rows: torchmetrics over its logits."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from engine.data.collate import ahead
from engine.data.dataset import Examples
from engine.models.multimodal import Multimodal
from engine.train.words import ShouldStop, heed

#: Rows at once: features are small, live inputs are not.
ROWS_CACHED, ROWS_LIVE = 1024, 16


def predict(model: Multimodal, examples: Examples, should_stop: ShouldStop) -> Tensor:
    """Logits [rows, classes] on the CPU. Raises StopAsked."""
    device = next(model.parameters()).device
    pieces = torch.arange(len(examples)).split(ROWS_CACHED if examples.is_cached else ROWS_LIVE)
    batches = map(examples.batch, pieces) if examples.is_cached else ahead(examples.batch, pieces)
    logits = []
    model.eval()
    with torch.no_grad():
        for batch in batches:
            heed(should_stop)
            batch = batch.to(device)
            logits.append(model(batch.inputs, batch.present).cpu())
    return torch.cat(logits)


def scores(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """`accuracy`, `f1_macro` and their like, and the mean loss."""
    classes = logits.shape[1]
    metrics: dict[str, Any] = {
        "accuracy": MulticlassAccuracy(classes, average="micro"),
        "f1_macro": MulticlassF1Score(classes, average="macro"),
        "precision_macro": MulticlassPrecision(classes, average="macro"),
        "recall_macro": MulticlassRecall(classes, average="macro"),
    }
    if classes > 5:
        metrics["top5_accuracy"] = MulticlassAccuracy(classes, average="micro", top_k=5)
    found = {name: value.item() for name, value in MetricCollection(metrics)(logits, targets).items()}
    return found | {"loss": F.cross_entropy(logits, targets).item()}


def confusion(logits: Tensor, targets: Tensor) -> list[list[int]]:
    """Rows: the true class. Columns: the predicted one."""
    found: list[list[int]] = MulticlassConfusionMatrix(logits.shape[1])(logits, targets).tolist()
    return found


def per_class(logits: Tensor, targets: Tensor, names: list[str]) -> list[dict[str, Any]]:
    count = len(names)
    precision = MulticlassPrecision(count, average="none")(logits, targets).tolist()
    recall = MulticlassRecall(count, average="none")(logits, targets).tolist()
    f1 = MulticlassF1Score(count, average="none")(logits, targets).tolist()
    rows = torch.bincount(targets, minlength=count).tolist()
    return [
        {"class": name, "precision": p, "recall": r, "f1": f, "rows": n}
        for name, p, r, f, n in zip(names, precision, recall, f1, rows, strict=True)
    ]

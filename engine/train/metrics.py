"""How good a network is on some rows: torchmetrics over its outputs, in the units of the data."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
    multilabel_exact_match,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
)
from torchmetrics.functional.regression import (
    mean_absolute_error,
    mean_squared_error,
    pearson_corrcoef,
    r2_score,
    spearman_corrcoef,
)

from domain.tasks import Task
from engine.data.collate import ahead
from engine.data.dataset import Examples
from engine.data.targets import Goal
from engine.models.multimodal import Multimodal
from engine.train.contrastive import Contrast
from engine.train.gpu_memory import Pieces
from engine.train.losses import Criterion
from engine.train.precision import Precision, autocast
from engine.train.retrieval import retrieval_scores
from engine.train.words import ShouldStop, heed

#: Rows at once: features are small, those of every frame are not, and live inputs even less.
ROWS_CACHED, ROWS_FRAMES, ROWS_LIVE = 1024, 64, 16


def predict(
    model: Multimodal, examples: Examples, should_stop: ShouldStop, precision: Precision = "fp32"
) -> Tensor:
    """Outputs [rows, classes or 1] in fp32 on the CPU. Raises StopAsked."""
    at_once = (ROWS_FRAMES if examples.has_frames else ROWS_CACHED) if examples.is_cached else ROWS_LIVE
    model.eval()
    pieces = Pieces(at_once)

    def answers(left: Tensor) -> Iterator[Tensor]:
        return _answers(model, examples, left.split(pieces.at_once), precision, should_stop)

    return torch.cat(list(pieces.made(answers, torch.arange(len(examples)))))


def _answers(
    model: Multimodal,
    examples: Examples,
    pieces: Sequence[Tensor],
    precision: Precision,
    should_stop: ShouldStop,
) -> Iterator[Tensor]:
    device = next(model.parameters()).device
    batches = map(examples.batch, pieces) if examples.is_cached else ahead(examples.batch, pieces)
    for batch in batches:
        heed(should_stop)
        batch = batch.to(device)
        with torch.no_grad(), autocast(precision, device):
            answered = model(batch.inputs, batch.present).float().cpu()
        yield answered


def scores(goal: Goal, outputs: Tensor, targets: Tensor, criterion: Criterion) -> dict[str, float]:
    """`loss` and those of the task's metrics that these rows define; a contrastive task's `targets` are content keys."""
    match goal.task:
        case Task.CLASSIFICATION:
            found = _of_classes(outputs, targets)
        case Task.MULTILABEL:
            found = _of_labels(outputs, targets)
        case Task.REGRESSION:
            found = _of_values(goal, outputs.squeeze(1), targets)
        case Task.CONTRASTIVE:
            assert isinstance(criterion, Contrast)
            return retrieval_scores(outputs, targets, goal.columns, criterion)
        case Task.GENERATION:
            found = {}  # `engine.train.answers` measures what is written
    defined = {name: value for name, value in found.items() if math.isfinite(value)}
    return defined | {"loss": criterion(outputs, targets).item()}


def _of_classes(logits: Tensor, targets: Tensor) -> dict[str, float]:
    count = logits.shape[1]
    # What is given logits takes those between 0 and 1 for probabilities: so these get probabilities.
    probabilities = logits.softmax(1)
    found = {
        "accuracy": multiclass_accuracy(logits, targets, count, average="micro"),
        "f1_macro": multiclass_f1_score(logits, targets, count, average="macro"),
        "f1_micro": multiclass_f1_score(logits, targets, count, average="micro"),
        "f1_weighted": multiclass_f1_score(logits, targets, count, average="weighted"),
        "precision_macro": multiclass_precision(logits, targets, count, average="macro"),
        "recall_macro": multiclass_recall(logits, targets, count, average="macro"),
        "log_loss": F.cross_entropy(logits, targets),
        "ece": multiclass_calibration_error(probabilities, targets, count),
        "roc_auc": _mean_of_columns(binary_auroc, probabilities, F.one_hot(targets, count).bool()),
    }
    if count > 5:
        found["top5_accuracy"] = multiclass_accuracy(logits, targets, count, average="micro", top_k=5)
    return {name: value.item() for name, value in found.items()}


def _of_labels(logits: Tensor, targets: Tensor) -> dict[str, float]:
    probabilities = logits.sigmoid()
    given, count = _two(probabilities, targets), max(2, logits.shape[1])
    found = {
        "f1_macro": multilabel_f1_score(*given, count, average="macro"),
        "f1_micro": multilabel_f1_score(*given, count, average="micro"),
        "f1_weighted": multilabel_f1_score(*given, count, average="weighted"),
        "precision_macro": multilabel_precision(*given, count, average="macro"),
        "recall_macro": multilabel_recall(*given, count, average="macro"),
        "exact_match": multilabel_exact_match(*given, count),
        "log_loss": F.binary_cross_entropy_with_logits(logits, targets.float()),
        "roc_auc": _mean_of_columns(binary_auroc, probabilities, targets),
        "average_precision": _mean_of_columns(binary_average_precision, probabilities, targets),
    }
    return {name: value.item() for name, value in found.items()}


def _two(probabilities: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """torchmetrics wants two labels or more; the only one given twice has the same means."""
    if probabilities.shape[1] > 1:
        return probabilities, targets.long()
    return probabilities.expand(-1, 2), targets.long().expand(-1, 2)


def _mean_of_columns(
    metric: Callable[[Tensor, Tensor], Tensor], probabilities: Tensor, targets: Tensor
) -> Tensor:
    """Over the classes that some rows have and some have not; NaN if there is none."""
    mixed = (targets.any(0) & ~targets.all(0)).nonzero().flatten().tolist()
    if not mixed:
        return torch.tensor(math.nan)
    return torch.stack([metric(probabilities[:, k], targets[:, k].long()) for k in mixed]).mean()


def _of_values(goal: Goal, values: Tensor, targets: Tensor) -> dict[str, float]:
    assert goal.scale is not None
    there, true = goal.scale.undone(values), goal.scale.undone(targets)
    found = {
        "rmse": mean_squared_error(there, true, squared=False).item(),
        "mae": mean_absolute_error(there, true).item(),
    }
    # The others have no unit, and standardised numbers lose nothing to a large mean.
    values, targets = values.double(), targets.double()
    if len(targets) < 2 or bool((targets == targets[0]).all()):
        return found
    if not bool((values.isfinite() & targets.isfinite()).all()):
        return found
    found["r2"] = r2_score(values, targets).item()
    if bool((values == values[0]).all()):
        return found
    return found | {
        "pearsonr": pearson_corrcoef(values, targets).item(),
        "spearmanr": spearman_corrcoef(values, targets).item(),
    }


def details(goal: Goal, outputs: Tensor, targets: Tensor) -> dict[str, Any]:
    """What a report tells beside single numbers: of classes, which is taken for which."""
    match goal.task:
        case Task.CLASSIFICATION:
            return {
                "confusion_matrix": confusion(outputs, targets),
                "per_class": per_class(outputs, targets, goal.classes),
            }
        case Task.MULTILABEL:
            return {"per_class": per_label(outputs, targets, goal.classes)}
        case Task.REGRESSION | Task.CONTRASTIVE | Task.GENERATION:
            return {}


def confusion(logits: Tensor, targets: Tensor) -> list[list[int]]:
    """Rows: the true class. Columns: the predicted one."""
    found: list[list[int]] = multiclass_confusion_matrix(logits, targets, logits.shape[1]).tolist()
    return found


def per_class(logits: Tensor, targets: Tensor, names: list[str]) -> list[dict[str, Any]]:
    count = len(names)
    kinds = {"precision": multiclass_precision, "recall": multiclass_recall, "f1": multiclass_f1_score}
    found = {name: kind(logits, targets, count, average="none") for name, kind in kinds.items()}
    return _listed(names, found, torch.bincount(targets, minlength=count))


def per_label(logits: Tensor, targets: Tensor, names: list[str]) -> list[dict[str, Any]]:
    given, count = _two(logits.sigmoid(), targets), max(2, len(names))
    kinds = {"precision": multilabel_precision, "recall": multilabel_recall, "f1": multilabel_f1_score}
    found = {name: kind(*given, count, average="none") for name, kind in kinds.items()}
    return _listed(names, found, targets.sum(0))


def _listed(names: list[str], found: dict[str, Tensor], rows: Tensor) -> list[dict[str, Any]]:
    return [
        {"class": name, **{word: values[i].item() for word, values in found.items()}, "rows": int(rows[i])}
        for i, name in enumerate(names)
    ]

"""What training makes small, by task: plain functions of a network's outputs and its targets, in fp32."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from domain.errors import EngineError
from domain.specs import Loss
from domain.tasks import Task
from engine.data.targets import IGNORED, Goal

#: Outputs [rows, classes or 1] and targets -> the mean over the rows.
Criterion = Callable[[Tensor, Tensor], Tensor]

#: A label that one row in thousands has must not outweigh all others.
LARGEST_WEIGHT = 100.0

#: The paper's best (Lin et al. 2017, arXiv:1708.02002, table 1b).
FOCAL_GAMMA = 2.0


def criterion(loss: Loss, goal: Goal, targets: Tensor) -> Criterion:
    """The loss for `goal`; `targets` are the training rows', by which classes are weighed.

    A contrastive one needs the network, and is made of it: `engine.train.contrastive`.
    """
    if goal.task is Task.REGRESSION:
        return mse
    if goal.task is Task.GENERATION:
        return answer_loss
    gamma = FOCAL_GAMMA if loss.gamma is None else loss.gamma
    if goal.task is Task.MULTILABEL:
        of_labels = _label_weights(loss, goal, targets)
        if loss.type == "focal":
            return partial(focal_bce, gamma=gamma, weights=of_labels)
        return partial(bce, weights=of_labels)
    weights = _class_weights(loss, goal, targets)
    if loss.type == "focal":
        return partial(focal, gamma=gamma, weights=weights)
    return partial(cross_entropy, weights=weights, smoothing=loss.label_smoothing)


def cross_entropy(
    outputs: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    if weights is None:
        return F.cross_entropy(outputs.float(), targets, label_smoothing=smoothing)
    # Not divided by the batch's own weights: micro-batches could then not be added up to one step.
    weighed = F.cross_entropy(
        outputs.float(), targets, weights.to(outputs.device), label_smoothing=smoothing, reduction="sum"
    )
    return weighed / len(targets)


def focal(outputs: Tensor, targets: Tensor, *, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy in which a row counts (1 - p) ** gamma, p being its class's probability (Lin et al. 2017)."""
    costs = F.cross_entropy(outputs.float(), targets, reduction="none")
    costs = costs * _unsure(costs, gamma)
    return (costs if weights is None else costs * weights.to(outputs.device)[targets]).mean()


def focal_bce(outputs: Tensor, targets: Tensor, *, gamma: float, weights: Tensor | None = None) -> Tensor:
    """The same for each label; `weights` are those of a label's positive rows."""
    truth = targets.float()
    costs = F.binary_cross_entropy_with_logits(outputs.float(), truth, reduction="none")
    costs = costs * _unsure(costs, gamma)
    return (
        costs if weights is None else torch.where(truth > 0, costs * weights.to(outputs.device), costs)
    ).mean()


def _unsure(costs: Tensor, gamma: float) -> Tensor:
    """(1 - p) ** gamma of costs -log(p). At p = 1 its slope is infinite for gamma below 1, and so p is kept off it."""
    return (-torch.expm1(-costs)).clamp(min=torch.finfo(costs.dtype).tiny) ** gamma


def bce(outputs: Tensor, targets: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Over all rows and labels; `weights` are those of a label's positive rows."""
    positive = None if weights is None else weights.to(outputs.device)
    return F.binary_cross_entropy_with_logits(outputs.float(), targets.float(), pos_weight=positive)


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs.float().squeeze(1), targets)


def answer_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Logits [tokens, vocabulary] of targets [rows, longest] padded with -100: each row's mean over its tokens, and the
    mean of these.

    Not the mean over all tokens: micro-batches could then not be added up to one step.
    """
    live = targets != IGNORED
    costs = F.cross_entropy(outputs.float(), targets[live], reduction="none")
    shares = (live / live.sum(1, keepdim=True).clamp(min=1))[live]
    return (costs * shares).sum() / len(targets)


def _class_weights(loss: Loss, goal: Goal, targets: Tensor) -> Tensor | None:
    """Of each class, so that the mean over the training rows is 1 and a learning rate keeps its meaning."""
    if loss.class_weights == "none":
        return None
    counts = torch.bincount(targets, minlength=len(goal.classes)).float()
    if loss.class_weights == "balanced":
        weights = 1 / counts.clamp(min=1)
    else:
        weights = _named(loss.class_weights, goal)
    return weights * counts.sum() / (weights * counts).sum()


def _label_weights(loss: Loss, goal: Goal, targets: Tensor) -> Tensor | None:
    """Balanced: the negative rows of a label over its positive ones."""
    if loss.class_weights == "none":
        return None
    if loss.class_weights != "balanced":
        return _named(loss.class_weights, goal)
    positive = targets.sum(0).float()
    return ((len(targets) - positive) / positive.clamp(min=1)).clamp(1 / LARGEST_WEIGHT, LARGEST_WEIGHT)


def _named(weights: Mapping[str, float], goal: Goal) -> Tensor:
    strange = sorted(set(weights) - set(goal.classes))
    if strange:
        message = f"class_weights names '{strange[0]}', which no training row is"
        raise EngineError("unknown_class", message, param="multimodal.loss.class_weights")
    return torch.tensor([weights.get(name, 1.0) for name in goal.classes])

"""From the head's outputs to answers in words: one readout a task. Knows no encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from domain.tasks import Task
from engine.data.targets import Scale
from engine.infer.answers import Scored

#: Of a model with more classes, a row tells the likeliest only: all of all rows may be too much for a job's row.
MOST_TOLD = 1000


@dataclass(frozen=True)
class Readout:
    """`scores` makes of outputs what is answered: probabilities [rows, classes], or values [rows, 1]."""

    scores: Callable[[Tensor], Tensor]
    #: Of scores [rows, numbers], those that a modality's weight is measured by.
    telling: Callable[[Tensor, Tensor], Tensor]
    #: A row's scores and how many classes are wanted -> fields of its Prediction.
    words: Callable[[list[float], int], dict[str, Any]]


def classification(classes: Sequence[str]) -> Readout:
    def words(scores: list[float], top_k: int) -> dict[str, Any]:
        ranked = _ranked(classes, scores)
        return {
            "label": ranked[0].label,
            "score": ranked[0].score,
            "top": tuple(ranked[:top_k]),
            "probabilities": _all(classes, scores),
        }

    def of_the_label(scores: Tensor, whole: Tensor) -> Tensor:
        return scores.gather(1, whole.argmax(1, keepdim=True))

    return Readout(lambda outputs: outputs.double().softmax(1), of_the_label, words)


def multilabel(classes: Sequence[str]) -> Readout:
    def words(scores: list[float], top_k: int) -> dict[str, Any]:
        ranked = _ranked(classes, scores)
        likely = {scored.label for scored in ranked[:MOST_TOLD] if scored.score >= 0.5}
        return {
            "labels": [name for name in classes if name in likely],
            "top": tuple(ranked[:top_k]),
            "probabilities": _all(classes, scores),
        }

    return Readout(lambda outputs: outputs.double().sigmoid(), lambda scores, _: scores, words)


def regression(target: Scale | None) -> Readout:
    """`target` leads back to the unit of the training data."""
    scale = target or Scale(0.0, 1.0)

    def words(scores: list[float], _: int) -> dict[str, Any]:
        return {"value": scores[0]}

    return Readout(lambda outputs: scale.undone(outputs.view(-1, 1)), lambda scores, _: scores, words)


def embeddings() -> Readout:
    """Of a model that says nothing in words."""
    return Readout(lambda outputs: outputs, lambda scores, _: scores, lambda _scores, _top: {})


def readout(task: Task, classes: Sequence[str], target: Scale | None) -> Readout:
    if task is Task.CONTRASTIVE:
        return embeddings()
    if task is Task.REGRESSION:
        return regression(target)
    return multilabel(classes) if task is Task.MULTILABEL else classification(classes)


def _all(classes: Sequence[str], scores: list[float]) -> dict[str, float] | None:
    return dict(zip(classes, scores, strict=True)) if len(classes) <= MOST_TOLD else None


def _ranked(classes: Sequence[str], scores: list[float]) -> list[Scored]:
    """Likeliest first; equals in the classes' order."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [Scored(classes[i], scores[i]) for i in order]

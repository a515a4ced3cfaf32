"""The parts of a report that compare: each is there with its numbers, or named as left out with the reason."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from domain.reports import Report
from domain.tasks import Task
from engine.data.dataset import Examples
from engine.data.targets import Goal
from engine.models.multimodal import Multimodal
from engine.report.baselines import Baselines, baselines, starting_features
from engine.report.calibration import calibration
from engine.report.features import Tensors
from engine.report.headline import Headline, headline
from engine.report.residuals import residuals
from engine.report.robustness import robustness
from engine.report.rows import Chosen, choose
from engine.train.gpu_memory import release
from engine.train.words import StopAsked

log = logging.getLogger(__name__)

Heed = Callable[[], None]

#: Letters of an error's words.
_LONGEST_WHY = 500
_ALL = "calibration, residuals, robustness, unimodal_baselines"


@dataclass
class Told:
    """`sections` by their names in report.json; `metrics` are the job's."""

    sections: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    left_out: list[dict[str, str]] = field(default_factory=list)

    def leave_out(self, what: str, why: str) -> None:
        self.left_out.append({"what": what, "why": why})


@dataclass(frozen=True)
class Parts:
    """A run's rows, ready to be fetched."""

    train: Examples
    validation: Examples
    test: Examples


def compare(
    wanted: Report,
    model: Multimodal,
    goal: Goal,
    parts: Parts,
    start: Tensors,
    outputs: Tensor | None,
    *,
    passes: int,
    heed: Heed,
) -> Told:
    """`outputs` are of all test rows, or validation rows where there are none; `passes` those over the training rows.

    A section that fails is left out with the reason: the model is trained, and is worth more than its report.
    Raises StopAsked, if `heed` does.
    """
    told = Told()
    with _left_out_if_it_fails(told, _ALL):
        _compare(told, wanted, model, goal, parts, start, outputs, passes, heed)
    told.metrics = {name: value for name, value in told.metrics.items() if math.isfinite(value)}
    return told


@contextmanager
def _left_out_if_it_fails(told: Told, what: str) -> Iterator[None]:
    try:
        yield
    except StopAsked:
        raise
    except Exception as error:
        log.exception("a report leaves out %s", what)
        told.leave_out(what, f"it could not be made: {str(error) or type(error).__name__}"[:_LONGEST_WHY])
        is_full = isinstance(error, torch.OutOfMemoryError)
    else:
        return
    # Not sooner: the error holds the frames, and they hold the tensors.
    if is_full:
        release()


def _compare(
    told: Told,
    wanted: Report,
    model: Multimodal,
    goal: Goal,
    parts: Parts,
    start: Tensors,
    outputs: Tensor | None,
    passes: int,
    heed: Heed,
) -> None:
    compared_by = headline(goal)
    chosen = choose(*(parts.train, parts.validation, parts.test), towers=model.names, passes=passes)
    if compared_by is None or chosen is None or outputs is None:
        why = "no row tests or validates" if compared_by else f"the task is {goal.task}"
        told.leave_out(_ALL, why)
        return
    with _left_out_if_it_fails(told, "residuals" if goal.scale else "calibration"):
        _describe(told, goal, outputs, chosen.examples.targets)
    found = None
    with _left_out_if_it_fails(told, "unimodal_baselines"):
        found = _baselines(told, wanted, model, goal, compared_by, parts, start, outputs, chosen, heed)
    with _left_out_if_it_fails(told, "robustness"):
        _robustness(told, wanted, model, compared_by, chosen, found, heed)


def _describe(told: Told, goal: Goal, outputs: Tensor, targets: Tensor) -> None:
    if goal.scale is not None:
        described = residuals(goal.scale, outputs, targets)
        lost = len(targets) - (described["rows"] if described else 0)
        if described:
            told.sections["residuals"] = described
        if lost:
            what = "residuals.rows" if described else "residuals"
            told.leave_out(
                what, f"{lost} of {len(targets)} rows have a target or an answer that is not finite"
            )
        return
    told.sections["calibration"] = found = calibration(goal.task, outputs, targets)
    if found["temperature"] is None:
        told.leave_out("calibration.temperature", "no temperature is best: colder or hotter is always better")
    if goal.task is Task.CLASSIFICATION and len(targets.unique()) < 2:
        told.leave_out("roc_auc", "all measured rows are of one class")


def _baselines(
    told: Told,
    wanted: Report,
    model: Multimodal,
    goal: Goal,
    compared_by: Headline,
    parts: Parts,
    start: Tensors,
    outputs: Tensor,
    chosen: Chosen,
    heed: Heed,
) -> Baselines | None:
    if not wanted.unimodal_baselines:
        told.leave_out("unimodal_baselines", "report.unimodal_baselines is false")
        return None
    towers = starting_features(model, start, parts.train, parts.validation, chosen, heed)
    found = baselines(goal, compared_by, towers, outputs[chosen.rows], chosen, heed)
    told.sections["unimodal_baselines"] = found.section
    told.metrics |= found.metrics
    told.left_out += found.left_out
    return found


def _robustness(
    told: Told,
    wanted: Report,
    model: Multimodal,
    compared_by: Headline,
    chosen: Chosen,
    against: Baselines | None,
    heed: Heed,
) -> None:
    if not wanted.robustness:
        told.leave_out("robustness", "report.robustness is false")
        return
    section, metrics, left_out = robustness(model, compared_by, chosen, against, heed)
    told.sections["robustness"] = section
    told.metrics |= metrics
    told.left_out += left_out

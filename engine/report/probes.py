"""Linear probes: logistic or ridge regression on features that nobody trained for the task (Alain & Bengio 2016)."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from domain.tasks import Task
from engine.data.targets import Goal
from engine.report.headline import Headline

#: scikit-learn's `C`, strongest regularisation first; the first of equally good ones is taken.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
#: Beyond so many a probe is a ridge regression on +1 and -1, which costs nearly the same for any number.
MOST_CLASSES, MOST_LABELS = 100, 20
#: Enough for standardised features; a fit must not outlast the second in which a stop is to be heard by much.
_ITERATIONS, _TOLERANCE = 100, 1e-3


@dataclass(frozen=True)
class Probe:
    """Answers like the network: [rows, classes], [rows, labels] or standardised numbers [rows, 1]."""

    kind: str
    strength: float
    mean: Tensor
    std: Tensor
    weights: Tensor
    bias: Tensor

    def __call__(self, vectors: Tensor, has: Tensor) -> Tensor:
        """`has` [rows, width]: where it is false, the mean of the training rows stands in."""
        scaled = torch.where(has, (vectors - self.mean) / self.std, 0.0)
        return scaled @ self.weights + self.bias


@dataclass(frozen=True)
class Rows:
    """Features [rows, width], which of them are there, and targets as the loss takes them."""

    vectors: Tensor
    has: Tensor
    targets: Tensor


def fit_probe(
    goal: Goal,
    compared_by: Headline,
    train: Rows,
    validation: Rows,
    heed: Callable[[], None],
    strengths: Sequence[float] = STRENGTHS,
) -> Probe | None:
    """The best of `strengths` by the validation rows, or without any by a fifth of the training rows.

    None where nothing can be learned: fewer than two training rows, one class, or numbers that are no numbers.
    """
    if len(validation.targets) == 0 and len(strengths) > 1:
        train, validation = _parted(train)
    if len(train.targets) < 2 or not bool(torch.isfinite(train.vectors).all()):
        return None
    if goal.task is Task.CLASSIFICATION and len(train.targets.unique()) < 2:
        return None
    scaled = _scaled(train)
    best: tuple[float, Probe] | None = None
    for strength in strengths:
        heed()
        probe = _fitted(goal, scaled, train.targets, strength, heed)
        if len(strengths) == 1 or len(validation.targets) == 0:
            return probe
        score = compared_by.sign * _score(compared_by, probe, validation)
        if best is not None and score < best[0]:
            # Weaker ones take longest, and are rarely better once one was worse.
            break
        if best is None or score > best[0]:
            best = score, probe
    return best[1] if best else None


def _score(compared_by: Headline, probe: Probe, rows: Rows) -> float:
    return compared_by.measure(probe(rows.vectors, rows.has), rows.targets)[compared_by.name]


def _parted(train: Rows) -> tuple[Rows, Rows]:
    """Four fifths and one fifth, drawn alike in every run."""
    order = torch.randperm(len(train.targets), generator=torch.Generator().manual_seed(0))
    some, others = order[len(order) // 5 :], order[: len(order) // 5]
    return tuple(Rows(train.vectors[i], train.has[i], train.targets[i]) for i in (some, others))  # type: ignore[return-value]


@dataclass(frozen=True)
class _Scaled:
    x: np.ndarray
    mean: Tensor
    std: Tensor


def _scaled(train: Rows) -> _Scaled:
    """Zero where a row has none. In float64, in which 1e4 plus a little is still that little."""
    there = torch.where(train.has, train.vectors, 0.0).double()
    count = train.has.sum(0).clamp(min=1)
    mean = there.sum(0) / count
    off = torch.where(train.has, there - mean, 0.0)
    std = (off.square().sum(0) / count).sqrt()
    std = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, 1.0)
    return _Scaled((off / std).float().numpy(), mean.float(), std.float())


def _fitted(goal: Goal, scaled: _Scaled, targets: Tensor, strength: float, heed: Callable[[], None]) -> Probe:
    kind, weights, bias = _solved(goal, scaled.x, targets, strength, heed)
    made = (torch.from_numpy(np.ascontiguousarray(a)).float() for a in (weights, bias))
    return Probe(kind, strength, scaled.mean, scaled.std, *made)


Solved = tuple[str, np.ndarray, np.ndarray]


def _solved(goal: Goal, x: np.ndarray, targets: Tensor, strength: float, heed: Callable[[], None]) -> Solved:
    """Kind, weights [width, outputs] and bias [outputs]."""
    if goal.task is Task.REGRESSION:
        return _ridge(x, targets.unsqueeze(1).double().numpy(), strength)
    if goal.task is Task.CLASSIFICATION and len(goal.classes) <= MOST_CLASSES:
        return _multinomial(x, targets.numpy(), len(goal.classes), strength)
    if goal.task is Task.MULTILABEL and len(goal.classes) <= MOST_LABELS:
        return _one_a_label(x, targets.numpy(), strength, heed)
    hot = targets if targets.ndim == 2 else torch.nn.functional.one_hot(targets, len(goal.classes))
    return _ridge(x, hot.numpy() * 2.0 - 1.0, strength)


def _ridge(x: np.ndarray, y: np.ndarray, strength: float) -> Solved:
    # The same meaning as a logistic regression's C: a penalty of 1 / C on the sum over the rows.
    fitted = Ridge(alpha=1 / strength, solver="cholesky" if x.shape[1] <= len(x) else "auto").fit(x, y)
    return "ridge regression", np.atleast_2d(fitted.coef_).T, np.atleast_1d(fitted.intercept_)


def _logistic(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=_ITERATIONS, tol=_TOLERANCE)


def _multinomial(x: np.ndarray, y: np.ndarray, classes: int, strength: float) -> Solved:
    fitted = _quietly(_logistic(strength), x, y)
    # A class that these rows lack is never the answer; of two scikit-learn tells one's margin.
    weights, bias = np.zeros((x.shape[1], classes)), np.full(classes, -1e9)
    coef, intercept = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:
        coef, intercept = np.vstack([-coef / 2, coef / 2]), np.array([-intercept[0] / 2, intercept[0] / 2])
    weights[:, fitted.classes_], bias[fitted.classes_] = coef.T, intercept
    return "logistic regression", weights, bias


def _one_a_label(x: np.ndarray, hot: np.ndarray, strength: float, heed: Callable[[], None]) -> Solved:
    columns: list[tuple[np.ndarray, float]] = []
    for label in hot.T:
        heed()
        if label.min() == label.max():
            columns.append((np.zeros(x.shape[1]), 1e3 if label.all() else -1e3))
            continue
        fitted = _quietly(_logistic(strength), x, label)
        columns.append((fitted.coef_[0], float(fitted.intercept_[0])))
    weights, bias = np.stack([w for w, _ in columns], axis=1), np.array([b for _, b in columns])
    return "logistic regression", weights, bias


def _quietly(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    """Whether it has converged to the last digit changes nothing that a report tells."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def side_by_side(towers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Vectors [rows, width] and has [rows] of several towers -> both [rows, all widths]."""
    vectors = torch.cat([v for v, _ in towers], dim=1)
    return vectors, torch.cat([has.unsqueeze(1).expand(-1, v.shape[1]) for v, has in towers], dim=1)

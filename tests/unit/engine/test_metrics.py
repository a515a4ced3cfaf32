"""Metrics by task: their names, their units, and what is left out where rows do not define it."""

import math

import pytest
import torch
from sklearn import metrics as known

from domain.tasks import METRICS, Task
from engine.data.targets import Goal, Scale
from engine.train.losses import bce, cross_entropy, mse
from engine.train.metrics import details, scores

LETTERS = ["a", "b", "c", "d", "e", "f"]
CLASSES, LABELS = Goal(Task.CLASSIFICATION, LETTERS), Goal(Task.MULTILABEL, LETTERS)
VALUES = Goal(Task.REGRESSION, [], Scale(1e6, 3.0))


def _logits(rows: int = 60, width: int = 6) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def _hot(rows: int = 60) -> torch.Tensor:
    return torch.rand(rows, 6, generator=torch.Generator().manual_seed(1)) < 0.3


def _values() -> tuple[torch.Tensor, torch.Tensor]:
    true = torch.linspace(-2, 2, 60)
    return (true + 0.3 * _logits(60, 1)[:, 0]).unsqueeze(1), true


def test_each_task_has_all_the_metrics_that_a_spec_may_name() -> None:
    of_classes = scores(CLASSES, _logits(), torch.arange(60) % 6, cross_entropy)
    of_labels = scores(LABELS, _logits(), _hot(), bce)
    of_values = scores(VALUES, *_values(), mse)

    assert set(of_classes) == {*METRICS[Task.CLASSIFICATION], "loss"}
    assert set(of_labels) == {*METRICS[Task.MULTILABEL], "loss"}
    assert set(of_values) == {*METRICS[Task.REGRESSION], "loss"}


def test_metrics_of_classes_are_those_of_scikit_learn() -> None:
    logits, targets = _logits(), torch.arange(60) % 6

    found = scores(CLASSES, logits, targets, cross_entropy)

    chosen, probabilities = logits.argmax(1), logits.double().softmax(1)
    assert found["f1_weighted"] == pytest.approx(known.f1_score(targets, chosen, average="weighted"))
    assert found["log_loss"] == pytest.approx(known.log_loss(targets, probabilities), rel=1e-5)
    assert found["roc_auc"] == pytest.approx(
        known.roc_auc_score(targets, probabilities, multi_class="ovr"), rel=1e-5
    )


def test_metrics_of_labels_are_those_of_scikit_learn() -> None:
    logits, hot = _logits(), _hot()

    found = scores(LABELS, logits, hot, bce)

    assert found["f1_micro"] == pytest.approx(known.f1_score(hot, logits > 0, average="micro"))
    assert found["exact_match"] == pytest.approx(known.accuracy_score(hot, logits > 0))
    assert found["average_precision"] == pytest.approx(
        known.average_precision_score(hot, logits, average="macro"), rel=1e-5
    )
    assert found["roc_auc"] == pytest.approx(known.roc_auc_score(hot, logits), rel=1e-5)


def test_errors_of_a_regression_are_in_the_datas_own_unit() -> None:
    outputs, targets = _values()

    found = scores(VALUES, outputs, targets, mse)

    there, true = outputs[:, 0].double() * 3 + 1e6, targets.double() * 3 + 1e6
    assert found["rmse"] == pytest.approx(known.root_mean_squared_error(true, there), rel=1e-6)
    assert found["mae"] == pytest.approx(known.mean_absolute_error(true, there), rel=1e-6)
    assert found["r2"] == pytest.approx(known.r2_score(true, there), rel=1e-5)
    assert found["pearsonr"] == pytest.approx(torch.corrcoef(torch.stack([true, there]))[0, 1].item())
    assert 0.9 < found["spearmanr"] <= 1


def test_what_rows_do_not_define_is_left_out() -> None:
    one_class = scores(CLASSES, _logits(4), torch.zeros(4, dtype=torch.long), cross_entropy)
    no_label = scores(LABELS, _logits(4), torch.zeros(4, 6, dtype=torch.bool), bce)
    one_value = scores(VALUES, torch.zeros(1, 1), torch.zeros(1), mse)
    equal = scores(VALUES, torch.zeros(3, 1), torch.arange(3.0), mse)

    assert "roc_auc" not in one_class
    assert not {"roc_auc", "average_precision"} & set(no_label)
    assert set(one_value) == {"rmse", "mae", "loss"}
    assert set(equal) == {"rmse", "mae", "r2", "loss"}
    assert all(math.isfinite(v) for found in (one_class, no_label, one_value, equal) for v in found.values())


def test_a_single_label_is_measured_too() -> None:
    goal, logits = Goal(Task.MULTILABEL, ["spam"]), torch.tensor([[2.0], [-1.0], [1.0], [-2.0]])
    hot = torch.tensor([[True], [False], [False], [False]])

    found = scores(goal, logits, hot, bce)

    assert found["f1_macro"] == pytest.approx(2 / 3)
    assert found["exact_match"] == 0.75
    assert details(goal, logits, hot)["per_class"][0] == pytest.approx(
        {"class": "spam", "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "rows": 1}
    )


def test_a_report_tells_of_each_label() -> None:
    told = details(LABELS, _logits(), _hot())["per_class"]

    assert [entry["class"] for entry in told] == LETTERS
    assert [entry["rows"] for entry in told] == _hot().sum(0).tolist()

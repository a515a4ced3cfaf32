"""The losses: what they weigh, and that micro-batches add up to the whole."""

import pytest
import torch
from torch.nn import functional as F

from domain.errors import EngineError
from domain.specs import Loss
from domain.tasks import Task
from engine.data.targets import Goal, Scale
from engine.train.losses import LARGEST_WEIGHT, Criterion, criterion

CLASSES = Goal(Task.CLASSIFICATION, ["a", "b", "c"])
LABELS = Goal(Task.MULTILABEL, ["x", "y"])
VALUES = Goal(Task.REGRESSION, [], Scale(3.0, 2.0))

#: Six rows of a, two of b, one of c.
PLACES = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2])
HOT = torch.tensor([[True, False], [True, False], [True, False], [False, True]])


def _logits(rows: int, width: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def test_without_options_a_classification_is_plain_cross_entropy() -> None:
    logits = _logits(9, 3)

    assert torch.equal(criterion(Loss(), CLASSES, PLACES)(logits, PLACES), F.cross_entropy(logits, PLACES))


def test_smoothed_labels_make_a_sure_answer_cost() -> None:
    sure = 20 * F.one_hot(PLACES, 3).float()

    plain = criterion(Loss(), CLASSES, PLACES)(sure, PLACES)
    smoothed = criterion(Loss(label_smoothing=0.1), CLASSES, PLACES)(sure, PLACES)

    assert plain < 1e-6
    assert smoothed.item() == pytest.approx(0.1 * 20 * 2 / 3, rel=1e-3)


def test_balanced_classes_count_the_same_in_all() -> None:
    loss = criterion(Loss(class_weights="balanced"), CLASSES, PLACES)
    logits = torch.zeros(9, 3, requires_grad=True)

    loss(logits, PLACES).backward()

    # With nothing known the pushes towards the classes cancel: none is favoured for being frequent.
    torch.testing.assert_close(logits.grad.sum(0), torch.zeros(3), atol=1e-6, rtol=0)


def test_weights_by_name_have_mean_one_over_the_training_rows() -> None:
    loss = criterion(Loss(class_weights={"c": 5.0}), CLASSES, PLACES)

    costs = [loss(torch.zeros(1, 3), torch.tensor([k])).item() for k in range(3)]
    whole = loss(torch.zeros(9, 3), PLACES).item()

    assert costs[2] == pytest.approx(5 * costs[0])
    assert costs[0] == pytest.approx(costs[1])
    assert whole == pytest.approx(torch.tensor(3.0).log().item())


def test_balanced_labels_make_rare_ones_count_as_much_as_their_absence() -> None:
    loss = criterion(Loss(class_weights="balanced"), LABELS, HOT)
    logits = torch.zeros(4, 2, requires_grad=True)

    loss(logits, HOT).backward()

    torch.testing.assert_close(logits.grad.sum(0), torch.zeros(2), atol=1e-6, rtol=0)


def test_a_label_that_no_row_has_or_all_rows_have_gets_no_endless_weight() -> None:
    never_and_always = torch.tensor([[False, True]] * 500)
    loss = criterion(Loss(class_weights="balanced"), LABELS, never_and_always)

    costs = loss(torch.zeros(500, 2), ~never_and_always)

    assert costs.isfinite()
    assert costs <= LARGEST_WEIGHT


def test_a_regression_is_squared_error_of_one_column() -> None:
    outputs, targets = _logits(5, 1), torch.arange(5.0)

    loss = criterion(Loss(), VALUES, targets)(outputs, targets)

    assert loss.item() == pytest.approx(((outputs[:, 0] - targets) ** 2).mean().item())


@pytest.mark.parametrize("weights", ["none", "balanced", {"a": 3.0}])
@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_micro_batches_add_up_to_the_whole(weights: str | dict[str, float], kind: str) -> None:
    loss, logits = criterion(Loss(type=kind, class_weights=weights), CLASSES, PLACES), _logits(9, 3)

    parts = [loss(logits[rows], PLACES[rows]) * len(PLACES[rows]) / 9 for rows in (slice(0, 6), slice(6, 9))]

    torch.testing.assert_close(sum(parts), loss(logits, PLACES))


@pytest.mark.parametrize(
    ("goal", "targets", "width"),
    [(CLASSES, PLACES, 3), (LABELS, HOT, 2), (VALUES, torch.randn(4), 1)],
    ids=[Task.CLASSIFICATION, Task.MULTILABEL, Task.REGRESSION],
)
def test_losses_are_full_precision_whatever_the_network_gives(
    goal: Goal, targets: torch.Tensor, width: int
) -> None:
    loss: Criterion = criterion(Loss(), goal, targets)

    assert loss(_logits(len(targets), width).bfloat16(), targets).dtype == torch.float32


def test_a_weight_for_a_class_that_no_row_has_is_refused() -> None:
    with pytest.raises(EngineError, match="'dog'") as refused:
        criterion(Loss(class_weights={"dog": 2.0}), CLASSES, PLACES)

    assert refused.value.param == "multimodal.loss.class_weights"


def test_a_focal_loss_is_the_papers() -> None:
    logits = _logits(9, 3)

    loss = criterion(Loss(type="focal", gamma=1.5), CLASSES, PLACES)(logits, PLACES)

    p = logits.softmax(1)[torch.arange(9), PLACES]
    torch.testing.assert_close(loss, (-((1 - p) ** 1.5) * p.log()).mean())


def test_a_focal_loss_of_labels_is_the_papers_for_each() -> None:
    logits = _logits(4, 2)

    loss = criterion(Loss(type="focal"), LABELS, HOT)(logits, HOT)

    p = torch.where(HOT, logits.sigmoid(), 1 - logits.sigmoid())
    torch.testing.assert_close(loss, (-((1 - p) ** 2) * p.log()).mean())


@pytest.mark.parametrize(("goal", "targets"), [(CLASSES, PLACES), (LABELS, HOT)])
def test_a_focal_loss_without_focus_is_the_usual_one(goal: Goal, targets: torch.Tensor) -> None:
    logits = _logits(len(targets), 3 if goal is CLASSES else 2)
    weighed = {"class_weights": "balanced"}

    losses = [
        criterion(Loss(**options, **weighed), goal, targets)(logits, targets)
        for options in ({"type": "focal", "gamma": 0.0}, {})
    ]

    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("sure", [60.0, 1e4, -1e4])
def test_whatever_a_network_is_sure_of_a_focal_loss_has_a_slope(gamma: float, sure: float) -> None:
    for goal, targets, width in ((CLASSES, PLACES, 3), (LABELS, HOT, 2)):
        hot = F.one_hot(targets, 3) if goal is CLASSES else targets
        logits = (sure * hot.float()).requires_grad_()

        loss = criterion(Loss(type="focal", gamma=gamma), goal, targets)(logits, targets)
        loss.backward()

        assert loss.isfinite()
        assert logits.grad.isfinite().all(), (goal, width)

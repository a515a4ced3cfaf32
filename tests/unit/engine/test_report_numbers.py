"""The numbers of a report against scikit-learn and SciPy, and against answers that are known."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error, root_mean_squared_error
from sklearn.preprocessing import StandardScaler
from torchmetrics.functional.classification import multiclass_calibration_error

from domain.tasks import Task
from engine.data.targets import Goal, Scale
from engine.report import bootstrap
from engine.report.baselines import sentence
from engine.report.calibration import best_temperature, calibration
from engine.report.confused import confused_pairs
from engine.report.headline import headline, metric_of, spread
from engine.report.probes import MOST_CLASSES, Rows, fit_probe
from engine.report.residuals import residuals
from engine.report.robustness import compared

CLASSES = Goal(Task.CLASSIFICATION, ["a", "b", "c"])
LABELS = Goal(Task.MULTILABEL, ["x", "y"])
NUMBERS = Goal(Task.REGRESSION, [], Scale(100.0, 20.0))


def never() -> None:
    return None


def classified(
    rows: int = 400, classes: int = 3, width: int = 6, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features with something of the class in them."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (rows,), generator=generator)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(7))
    return centres[targets] * 0.8 + torch.randn(rows, width, generator=generator), targets


def whole(vectors: torch.Tensor, targets: torch.Tensor) -> Rows:
    return Rows(vectors, torch.ones_like(vectors, dtype=torch.bool), targets)


def none_of(vectors: torch.Tensor, targets: torch.Tensor) -> Rows:
    return whole(vectors[:0], targets[:0])


def test_the_expected_calibration_error_is_that_of_torchmetrics_and_its_bins_are_those_of_scikit_learn() -> (
    None
):
    vectors, targets = classified()
    logits = 2 * vectors[:, :3]

    found = calibration(Task.CLASSIFICATION, logits, targets)

    certain, said = logits.double().softmax(1).max(1)
    assert found["ece"] == pytest.approx(
        multiclass_calibration_error(logits.double().softmax(1), targets, 3, n_bins=15).item(), abs=1e-6
    )
    true, predicted = calibration_curve((said == targets).numpy(), certain.numpy(), n_bins=15)
    assert [b["accuracy"] for b in found["bins"]] == pytest.approx(true)
    assert [b["confidence"] for b in found["bins"]] == pytest.approx(predicted)
    assert sum(b["count"] for b in found["bins"]) == len(targets)


def test_the_best_temperature_is_where_the_log_loss_is_smallest() -> None:
    vectors, targets = classified()
    logits = 5 * (torch.eye(3)[targets] + vectors[:, :3])

    found = best_temperature(Task.CLASSIFICATION, logits, targets)

    def loss(t: np.ndarray) -> float:
        return log_loss(targets, (logits.double() / float(np.exp(t[0]))).softmax(1).numpy())

    best = minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-5})
    assert found is not None
    assert found["best"] == pytest.approx(np.exp(best.x[0]), rel=2e-3)
    assert found["log_loss"] == pytest.approx(best.fun, rel=1e-4)
    assert found["log_loss"] < found["log_loss_now"]


def test_where_all_rows_are_right_no_temperature_is_best() -> None:
    logits = torch.eye(3).repeat(4, 1) * 3

    assert best_temperature(Task.CLASSIFICATION, logits, torch.arange(3).repeat(4)) is None


@pytest.mark.parametrize("rows", [1, 2])
def test_two_rows_have_a_calibration(rows: int) -> None:
    found = calibration(
        Task.CLASSIFICATION, torch.tensor([[2.0, 1.0], [0.3, 0.1]])[:rows], torch.tensor([0, 1])[:rows]
    )

    assert sum(b["count"] for b in found["bins"]) == rows


def test_a_calibration_of_very_many_rows_takes_them_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.report.calibration._MOST_LOGITS", 30)
    targets = torch.arange(100) // 50
    logits = torch.zeros(100, 2)

    found = calibration(Task.CLASSIFICATION, logits, targets)

    assert found["count"] == 15
    assert found["bins"][0]["accuracy"] == pytest.approx(8 / 15)


def test_labels_are_calibrated_each_for_itself() -> None:
    found = calibration(Task.MULTILABEL, torch.zeros(10, 2), torch.arange(20).view(10, 2) % 2 == 0)

    assert found["count"] == 20
    assert found["ece"] == pytest.approx(0)


def test_headlines_are_scikit_learns_metrics() -> None:
    logits, targets = classified()
    hot, said = logits[:, 3:5] > 0.3, logits[:, :2]
    numbers, true = logits[:, :1], logits[:, 1]

    of_classes = headline(CLASSES).measure(logits[:, :3], targets)
    of_labels = headline(LABELS).measure(said, hot)
    of_numbers = headline(NUMBERS).measure(numbers, true)

    predicted = logits[:, :3].argmax(1)
    assert of_classes["accuracy"] == pytest.approx(accuracy_score(targets, predicted))
    assert of_classes["f1_macro"] == pytest.approx(f1_score(targets, predicted, average="macro"))
    assert of_labels["f1_macro"] == pytest.approx(f1_score(hot, said > 0, average="macro"))
    assert of_labels["exact_match"] == pytest.approx(accuracy_score(hot, said > 0))
    there, answers = 100 + 20 * true, 100 + 20 * numbers[:, 0]
    assert of_numbers["rmse"] == pytest.approx(root_mean_squared_error(there, answers), rel=1e-5)
    assert of_numbers["mae"] == pytest.approx(mean_absolute_error(there, answers), rel=1e-5)


@pytest.mark.parametrize("goal", [CLASSES, LABELS, NUMBERS], ids=["classes", "labels", "numbers"])
def test_a_resample_is_measured_as_its_rows_repeated_would_be(goal: Goal) -> None:
    vectors, places = classified(rows=30)
    outputs = vectors[:, :3] if goal is CLASSES else vectors[:, :2] if goal is LABELS else vectors[:, :1]
    targets = places if goal is CLASSES else vectors[:, 2:4] > 0 if goal is LABELS else vectors[:, 1]
    compared_by = headline(goal)
    draws = bootstrap.resamples(30, never)

    found = compared_by.weighed(outputs, targets)(draws)

    assert draws.sum(1).unique().tolist() == [30]
    for weights, value in zip(draws[:20], found[:20], strict=True):
        again = torch.repeat_interleave(torch.arange(30), weights.long())
        assert value.item() == pytest.approx(
            compared_by.measure(outputs[again], targets[again])[compared_by.name], rel=1e-6
        )


def test_a_bootstrapped_interval_is_about_that_of_scipy() -> None:
    right = np.random.default_rng(0).random(200) < 0.7
    logits = torch.stack([torch.zeros(200), torch.from_numpy(right) * 2.0 - 1.0], dim=1)
    draws = bootstrap.resamples(200, never)

    low, high = bootstrap.interval(
        headline(Goal(Task.CLASSIFICATION, ["a", "b"])).weighed(logits, torch.ones(200).long())(draws)
    )

    theirs = stats.bootstrap(
        (right,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(1)
    )
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.015)


def test_a_stop_is_heard_between_two_draws() -> None:
    class Asked(Exception):
        pass

    def stop() -> None:
        raise Asked

    with pytest.raises(Asked):
        bootstrap.resamples(10, stop)


def test_a_probe_is_scikit_learns_logistic_regression_on_standardised_features() -> None:
    vectors, targets = classified()
    train, other = whole(vectors[:300], targets[:300]), whole(vectors[300:], targets[300:])

    probe = fit_probe(CLASSES, headline(CLASSES), train, other, never)

    scaler = StandardScaler().fit(train.vectors.numpy())
    theirs = {
        c: LogisticRegression(C=c).fit(scaler.transform(train.vectors.numpy()), train.targets.numpy())
        for c in (1e-3, 1e-2, 1e-1, 1.0)
    }
    scaled = scaler.transform(other.vectors.numpy())
    scores = {c: m.score(scaled, other.targets.numpy()) for c, m in theirs.items()}
    assert probe is not None
    assert probe.kind == "logistic regression"
    assert scores[probe.strength] == max(scores.values())
    ours = probe(other.vectors, other.has).softmax(1).numpy()
    np.testing.assert_allclose(ours, theirs[probe.strength].predict_proba(scaled), atol=0.01)


def test_a_probe_of_two_classes_has_scikit_learns_probabilities() -> None:
    vectors, targets = classified(classes=2)
    goal = Goal(Task.CLASSIFICATION, ["a", "b"])

    probe = fit_probe(goal, headline(goal), whole(vectors, targets), none_of(vectors, targets), never)

    assert probe is not None
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))[80:]
    scaler = StandardScaler().fit(vectors[order].numpy())
    theirs = LogisticRegression(C=probe.strength).fit(
        scaler.transform(vectors[order].numpy()), targets[order].numpy()
    )
    ours = probe(vectors, torch.ones_like(vectors, dtype=torch.bool)).softmax(1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(scaler.transform(vectors.numpy())), atol=0.01)


def test_a_probe_of_numbers_is_ridge_regression() -> None:
    vectors, _ = classified()
    true = vectors @ torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 0.1])
    train, other = whole(vectors[:300], true[:300]), whole(vectors[300:], true[300:])

    probe = fit_probe(NUMBERS, headline(NUMBERS), train, other, never)

    assert probe is not None
    scaler = StandardScaler().fit(train.vectors.numpy())
    theirs = Ridge(alpha=1 / probe.strength).fit(
        scaler.transform(train.vectors.numpy()), train.targets.numpy()
    )
    ours = probe(other.vectors, other.has)[:, 0].numpy()
    np.testing.assert_allclose(ours, theirs.predict(scaler.transform(other.vectors.numpy())), atol=1e-3)


def test_a_row_without_the_modality_gets_what_the_mean_of_the_others_gets() -> None:
    vectors, targets = classified()
    probe = fit_probe(CLASSES, headline(CLASSES), whole(vectors, targets), none_of(vectors, targets), never)
    assert probe is not None

    absent = probe(torch.full((1, 6), 9e9), torch.zeros(1, 6, dtype=torch.bool))

    torch.testing.assert_close(absent[0], probe.bias)


def test_a_class_that_no_row_of_a_probe_has_is_never_its_answer() -> None:
    vectors, targets = classified(classes=2)
    goal = Goal(Task.CLASSIFICATION, ["a", "b", "rare"])

    probe = fit_probe(goal, headline(goal), whole(vectors, targets), none_of(vectors, targets), never)

    assert probe is not None
    assert probe(vectors, torch.ones_like(vectors, dtype=torch.bool)).argmax(1).max() == 1


def test_a_probe_of_many_classes_is_a_ridge_regression() -> None:
    many = MOST_CLASSES + 900
    goal = Goal(Task.CLASSIFICATION, [str(n) for n in range(many)])
    targets = torch.arange(many).repeat(2)
    vectors = torch.randn(many, 48, generator=torch.Generator().manual_seed(1))[targets]

    probe = fit_probe(goal, headline(goal), whole(vectors, targets), whole(vectors, targets), never)

    assert probe is not None
    assert probe.kind == "ridge regression"
    assert (
        headline(goal).measure(probe(vectors, torch.ones_like(vectors, dtype=torch.bool)), targets)[
            "accuracy"
        ]
        > 0.9
    )


def test_labels_of_which_one_is_always_there_have_a_probe() -> None:
    vectors, _ = classified()
    hot = torch.stack([vectors[:, 0] > 0, torch.ones(400, dtype=torch.bool)], dim=1)

    probe = fit_probe(LABELS, headline(LABELS), whole(vectors, hot), whole(vectors, hot), never)

    assert probe is not None
    assert (
        headline(LABELS).measure(probe(vectors, torch.ones_like(vectors, dtype=torch.bool)), hot)["f1_macro"]
        > 0.9
    )


@pytest.mark.parametrize("broken", ["one row", "one class", "not finite"])
def test_of_nothing_that_can_be_learned_there_is_no_probe(broken: str) -> None:
    vectors, targets = classified(rows=20)
    if broken == "one row":
        vectors, targets = vectors[:1], targets[:1]
    elif broken == "one class":
        targets = torch.zeros_like(targets)
    else:
        vectors[3, 2] = torch.nan

    assert (
        fit_probe(CLASSES, headline(CLASSES), whole(vectors, targets), whole(vectors, targets), never) is None
    )


def test_a_constant_target_has_a_probe_and_residuals() -> None:
    vectors, _ = classified(rows=20)
    targets = torch.zeros(20)
    goal = Goal(Task.REGRESSION, [], Scale(5.0, 1.0))

    probe = fit_probe(goal, headline(goal), whole(vectors, targets), whole(vectors, targets), never)
    found = residuals(goal.scale, torch.zeros(20, 1), targets)

    assert probe is not None
    assert found["mean"] == found["std"] == 0
    assert found["histogram"] == {"edges": [0.0, 0.0], "counts": [20]}


def test_residuals_are_numpys_quantiles_in_the_datas_unit() -> None:
    vectors, _ = classified()
    outputs, targets = vectors[:, :1], vectors[:, 1]

    found = residuals(NUMBERS.scale, outputs, targets)

    off = 20 * (outputs[:, 0] - targets).double().numpy()
    assert found["mean"] == pytest.approx(off.mean())
    assert found["std"] == pytest.approx(off.std())
    for q, value in found["quantiles"].items():
        assert value == pytest.approx(np.quantile(off, float(q)))
    assert sum(found["histogram"]["counts"]) == 400
    assert found["points"][0] == pytest.approx(
        [100 + 20 * targets[0].item(), 100 + 20 * outputs[0, 0].item()]
    )


def test_the_most_confused_pairs_come_first() -> None:
    found = confused_pairs([[5, 1, 0], [3, 2, 3], [0, 0, 9]], ["a", "b", "c"])

    assert [(p["true"], p["predicted"], p["rows"]) for p in found] == [
        ("b", "a", 3),
        ("b", "c", 3),
        ("a", "b", 1),
    ]
    assert found[0]["share_of_true"] == 3 / 8


def test_relative_and_effective_robustness_are_the_lead_and_what_is_left_of_it() -> None:
    told = [
        {"value": 0.7, "clean": 0.9, "baseline": 0.4, "baseline_clean": 0.8},
        {"value": 0.5, "clean": 0.9, "baseline": 0.4, "baseline_clean": 0.8},
    ]

    found = compared(told, 1)

    assert found["relative_robustness"] == pytest.approx(0.2)
    assert found["effective_robustness"] == pytest.approx(0.1)
    assert compared(told, -1)["relative_robustness"] == pytest.approx(-0.2)


def test_sentences_say_whether_fusion_pays() -> None:
    assert sentence("accuracy", "photo", {"value": 0.109, "interval": [0.08, 0.14]}) == (
        "Fusion gains 0.109 of accuracy (0.08 to 0.14) over the best single modality, 'photo'."
    )
    assert "may be chance" in sentence("accuracy", "photo", {"value": 0.01, "interval": [-0.02, 0.04]})
    assert sentence("rmse", "photo", {"value": -1.5, "interval": None}).startswith("Fusion did not help")


def test_a_metrics_name_fits_the_database_whatever_a_column_is_called() -> None:
    long = ["x" * 150 + end for end in "ab"]

    names = [metric_of("f1_macro", "missing", column) for column in [*long, "a\0b\ud800"]]

    assert metric_of("f1_macro", "missing", "photo") == "f1_macro@missing:photo"
    assert len(set(names)) == 3
    assert all(len(name) <= 100 for name in names)
    assert all(name.isprintable() for name in names)


def test_rows_are_taken_evenly() -> None:
    assert spread(3, 5).tolist() == [0, 1, 2]
    assert spread(10, 5).tolist() == [0, 2, 4, 6, 8]


def test_residuals_are_those_of_rows_that_have_a_finite_one() -> None:
    outputs = torch.tensor([[0.5], [1.0], [0.0], [torch.nan]])
    targets = torch.tensor([0.0, 0.0, torch.inf, 0.0])

    found = residuals(Scale(100.0, 20.0), outputs, targets)

    assert found == residuals(Scale(100.0, 20.0), outputs[:2], targets[:2])
    assert found is not None
    assert (found["rows"], found["mean"]) == (2, 15.0)
    assert residuals(Scale(100.0, 20.0), outputs[2:], targets[2:]) is None

"""The report that a whole run leaves: what it says, what it leaves out, and that the model is none the worse for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from domain.specs import Multimodal
from engine.infer import load
from engine.models.multimodal import Multimodal as Network
from engine.report import sections
from engine.train.run import Finished, Progress, Stopped, train
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT

MEDIA = {
    "image": {"encoder": IMAGE},
    "audio": {"encoder": AUDIO, "max_seconds": 0.5},
    "text": {"encoder": TEXT},
}
TRAINED = {"image": {"encoder": IMAGE, "freeze": False, "lr": 1e-3}, "text": {"encoder": TEXT}}


class Runs:
    """Trains into folders of one test."""

    def __init__(self, folder: Path, encoders: dict[str, Path]) -> None:
        self.folder, self.encoders = folder, encoders
        self.said: list[Progress] = []

    def train(
        self, training: Path, towers: dict[str, Any], out: str = "out", hear: Any = None, **options: Any
    ) -> Finished | Stopped:
        hyper = {"n_epochs": 3, "batch_size": 8} | options.pop("hyper", {})
        spec = {"towers": towers, "fusion": {"dim": 8}, "hyperparameters": hyper, **options.pop("spec", {})}
        if "kind" in towers:
            spec["schema"] = {"columns": {"size": {"type": "number"}, "kind": {"type": "category"}}}
        return train(
            Multimodal.model_validate(spec),
            training=training,
            encoders=self.encoders.__getitem__,
            cache=self.folder / "cache",
            out=self.folder / out,
            seed=1,
            report=hear or self.said.append,
            **options,
        )

    def report(self, out: str = "out") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / out / "results/report.json").read_text())
        return found

    def table(self, label: Callable[[int], Any], rows: int = 60, **columns: Callable[[int], Any]) -> Path:
        """Rows with a number `size` and a category `kind`; of five, three train, one validates and one tests."""
        split = ("train", "train", "train", "validation", "test")
        made = {"size": lambda n: (n * 7 % 13) / 2, "kind": lambda n: "abc"[n % 3], **columns}
        lines = [
            {"split": split[n % 5], **{name: value(n) for name, value in made.items()}, "label": label(n)}
            for n in range(rows)
        ]
        path = self.folder / "rows.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path


@pytest.fixture
def runs(tmp_path: Path, encoders: dict[str, Path]) -> Runs:
    return Runs(tmp_path, encoders)


TABULAR: dict[str, Any] = {"size": {}, "kind": {}}


def left_out(report: dict[str, Any]) -> set[str]:
    return {what for entry in report["left_out"] for what in entry["what"].split(", ")}


def test_a_report_tells_what_each_modality_is_worth_and_what_happens_without_it(runs: Runs) -> None:
    ending = runs.train(tiny_av(runs.folder, rows=60, missing=0.2), MEDIA)

    assert isinstance(ending, Finished)
    report = runs.report()
    assert report["measured_on"] == "test"
    assert sum(b["count"] for b in report["calibration"]["bins"]) == report["counts"]["test"]
    singles = {told["tower"]: told for told in report["unimodal_baselines"]["towers"]}
    assert set(singles) == set(MEDIA)
    best = singles[report["unimodal_baselines"]["best"]]
    assert best["value"] == max(told["value"] for told in singles.values()) == ending.metrics["unimodal_best"]
    gain = report["unimodal_baselines"]["fusion_gain"]
    assert gain["value"] == pytest.approx(ending.metrics["test_accuracy"] - best["value"])
    assert gain["interval"][0] <= gain["value"] <= gain["interval"][1]
    assert ending.metrics["fusion_gain"] == gain["value"]
    assert gain["sentence"] in (runs.said[-1].message or "")
    for name in MEDIA:
        assert {f"accuracy@missing:{name}", f"f1_macro@missing:{name}"} <= set(ending.metrics)
    told = report["robustness"]
    assert told["clean"]["accuracy"] == pytest.approx(ending.metrics["test_accuracy"])
    assert [c["strength"] for c in told["conditions"] if c["tower"] == "audio"] == [None, 0.5, 1.0, 2.0]
    assert told["worst"] in told["conditions"]
    assert {"relative_robustness", "effective_robustness"} <= set(ending.metrics)
    assert set(report["cost"]["wall_seconds"]) == {"loading", "encoding", "training", "evaluating", "report"}
    assert report["cost"]["gpu_seconds"] is None
    # Of rows that are all right, ever colder is ever better.
    assert left_out(report) <= {"calibration.temperature"}


def test_a_metric_without_a_modality_is_that_of_predictions_without_it(runs: Runs) -> None:
    def label(n: int) -> str:
        return "yes" if n % 3 == 0 or n % 7 > 4 else "no"

    ending = runs.train(runs.table(label), TABULAR)

    assert isinstance(ending, Finished)
    model, tested = load(runs.folder / "out/model"), range(4, 60, 5)
    answers = model.predict([{"size": (n * 7 % 13) / 2} for n in tested])
    right = [answer.label == label(n) for answer, n in zip(answers, tested, strict=True)]
    assert ending.metrics["accuracy@missing:kind"] == pytest.approx(np.mean(right))


def test_towers_that_give_no_single_vector_are_measured_without_each_all_the_same(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = runs.table(lambda n: "yes" if n % 3 == 0 or n % 7 > 4 else "no")
    runs.train(data, TABULAR, out="vectors")
    monkeypatch.setattr(Network, "encoded", lambda self, inputs, present: None)

    runs.train(data, TABULAR, out="tokens")

    def without_each(out: str) -> dict[str, float]:
        told = runs.report(out)["metrics"]
        return {name: value for name, value in told.items() if "@missing:" in name}

    assert without_each("tokens") == without_each("vectors")
    assert len(without_each("tokens")) == 4
    assert "robustness.noise" in left_out(runs.report("tokens"))


@pytest.mark.slow
@pytest.mark.parametrize("towers", [MEDIA, TRAINED], ids=["frozen", "trained"])
def test_the_model_is_the_same_with_and_without_its_report(runs: Runs, towers: dict[str, Any]) -> None:
    data = tiny_av(runs.folder, rows=15, missing=0.2)
    nothing = {"report": {"robustness": False, "unimodal_baselines": False}}

    runs.train(data, towers, out="with", hyper={"n_epochs": 2})
    runs.train(data, towers, out="without", spec=nothing, hyper={"n_epochs": 2})

    one, other = (load_file(runs.folder / out / "model/model.safetensors") for out in ("with", "without"))
    assert all(np.array_equal(one[name], other[name]) for name in one.keys() | other.keys())
    assert {"robustness", "unimodal_baselines"} <= left_out(runs.report("without"))
    assert (
        runs.report("with")["metrics"].items()
        >= {
            name: value
            for name, value in runs.report("without")["metrics"].items()
            if name.startswith(("test_", "valid_"))
        }.items()
    )


def test_equal_runs_have_equal_reports(runs: Runs) -> None:
    data = runs.table(lambda n: "yes" if n % 3 == 0 else "no")

    runs.train(data, TABULAR, out="one")
    runs.train(data, TABULAR, out="other")

    def without_times(report: dict[str, Any]) -> dict[str, Any]:
        timed = ("cost", "metrics", "cached_epoch_speedup")
        return {name: value for name, value in report.items() if name not in timed}

    assert without_times(runs.report("one")) == without_times(runs.report("other"))


@pytest.mark.slow
def test_trained_towers_are_probed_with_their_starting_weights(runs: Runs) -> None:
    data = tiny_av(runs.folder, rows=30)

    runs.train(data, {"image": {"encoder": IMAGE}, "text": {"encoder": TEXT}}, out="frozen")
    runs.train(data, {**TRAINED, "image": TRAINED["image"] | {"lr": 0.01}}, out="trained")

    def single(out: str) -> list[tuple[str, float]]:
        return [(t["tower"], t["value"]) for t in runs.report(out)["unimodal_baselines"]["towers"]]

    assert single("frozen") == single("trained")


def test_without_test_rows_the_validation_rows_are_reported_and_it_says_so(runs: Runs) -> None:
    table = runs.folder / "rows.jsonl"
    table.write_text(
        "".join(json.dumps({"size": n % 7, "kind": "ab"[n % 2], "label": n % 2}) + "\n" for n in range(60))
    )

    runs.train(table, TABULAR)

    report = runs.report()
    assert report["test"] is None
    assert report["measured_on"] == "validation"
    assert len(report["validation"]["per_class"]) == 2


def test_a_single_tower_has_no_fusion_to_gain_by(runs: Runs) -> None:
    ending = runs.train(runs.table(lambda n: "yes" if n % 3 == 0 else "no"), {"kind": {}})

    assert isinstance(ending, Finished)
    assert {"fusion_gain", "relative_robustness"} <= left_out(runs.report())
    assert not {"fusion_gain", "accuracy@missing:kind"} & set(ending.metrics)
    assert [t["tower"] for t in runs.report()["unimodal_baselines"]["towers"]] == ["kind"]


def test_two_test_rows_have_a_report_without_intervals(runs: Runs) -> None:
    runs.train(runs.table(lambda n: "yes" if n % 3 == 0 else "no", rows=10), TABULAR)

    report = runs.report()
    assert report["counts"]["test"] == 2
    assert report["unimodal_baselines"]["fusion_gain"]["interval"] is None
    assert "unimodal_baselines.intervals" in left_out(report)


def test_test_rows_of_one_class_have_a_report(runs: Runs) -> None:
    runs.train(runs.table(lambda n: "no" if n % 5 == 4 or n % 2 else "yes"), TABULAR)

    assert "roc_auc" in left_out(runs.report())
    assert "roc_auc" not in runs.report()["test"]["metrics"]


@pytest.mark.parametrize(
    "kind", ["regression", "constant", "multilabel", pytest.param("many classes", marks=pytest.mark.slow)]
)
def test_every_task_has_a_report(runs: Runs, kind: str) -> None:
    labels: dict[str, Callable[[int], Any]] = {
        "regression": lambda n: 100.0 + n % 3 * 5 + n * 7 % 13 / 2,
        "constant": lambda n: 4.5,
        "multilabel": lambda n: ["ab"[n % 2], *(["c"] if n % 3 else [])],
        "many classes": lambda n: f"class {n % 1000}",
    }
    rows, task = (1000 if kind == "many classes" else 60), "regression" if kind == "constant" else "auto"
    split = {"split": lambda n: "train"} if kind == "many classes" else {}
    data = runs.table(labels[kind], rows, **split)
    tested = {"test": data} if kind == "many classes" else {}

    ending = runs.train(data, TABULAR, spec={"task": task}, hyper={"n_epochs": 1}, **tested)

    assert isinstance(ending, Finished)
    report = runs.report()
    assert {"unimodal_best", "fusion_gain"} <= set(ending.metrics)
    if kind in ("regression", "constant"):
        assert "rmse@missing:kind" in ending.metrics
        assert report["residuals"]["absolute_quantiles"]["0.5"] >= 0
    else:
        assert report["calibration"]["ece"] >= 0


def test_a_stop_during_the_report_is_heard_at_once(runs: Runs) -> None:
    asked_after = {"stop": 0}
    is_reporting = []

    def hear(progress: Progress) -> None:
        is_reporting.extend([True] if progress.stage == "evaluating" else [])

    def should_stop() -> str | None:
        if not is_reporting:
            return None
        asked_after["stop"] += 1
        # The first questions are those of the test rows' pass.
        return "cancel" if asked_after["stop"] > 5 else None

    data = runs.table(lambda n: "yes" if n % 3 == 0 else "no")
    ending = runs.train(data, TABULAR, hear=hear, should_stop=should_stop)

    assert isinstance(ending, Stopped)
    assert asked_after["stop"] == 6
    assert not (runs.folder / "out/model").exists()
    assert "train_loss" in (runs.folder / "out/results/results.csv").read_text()


@pytest.mark.parametrize(("place", "huge"), [(3, 1e25), (4, 1e30)], ids=["validation", "test"])
def test_a_row_that_overflows_costs_a_finished_training_nothing(runs: Runs, place: int, huge: float) -> None:
    unit = 1e-2 if place == 3 else 1e-12
    data = runs.table(lambda n: huge if n == place else unit * (n % 5))

    ending = runs.train(data, TABULAR, spec={"task": "regression"}, hyper={"n_epochs": 1, "eval_steps": 1})

    assert isinstance(ending, Finished)
    assert (runs.folder / "out/model/config.json").exists()
    report = runs.report()
    assert "<svg" in (runs.folder / "out/results/report.html").read_text()
    if place == 4:
        assert report["residuals"]["rows"] == report["counts"]["test"] - 1
        assert "residuals.rows" in left_out(report)


@pytest.mark.parametrize("broken", ["residuals", "starting_features", "robustness", "choose"])
def test_a_section_that_fails_is_left_out_with_its_reason_and_the_model_is_there(
    runs: Runs, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("cuBLAS is not in the mood")

    monkeypatch.setattr(sections, broken, failing)
    data = runs.table(lambda n: 100.0 + n * 7 % 13 / 2)

    ending = runs.train(data, TABULAR, spec={"task": "regression"}, hyper={"n_epochs": 1})

    assert isinstance(ending, Finished)
    assert load(runs.folder / "out/model").predict([{"size": 1.0}])[0].error is None
    report = runs.report()
    sought = {
        "residuals": {"residuals"},
        "robustness": {"robustness"},
        "starting_features": {"unimodal_baselines"},
    }
    every = {"calibration", "residuals", "robustness", "unimodal_baselines"}
    lost = sought.get(broken, every)
    assert lost <= left_out(report)
    assert not lost & set(report)
    assert set(report) >= every - {"calibration"} - lost
    assert any("cuBLAS is not in the mood" in entry["why"] for entry in report["left_out"])
    assert "cuBLAS is not in the mood" in caplog.text

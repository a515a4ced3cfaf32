"""What a prediction says in each task, by models trained for it, and fusions that weigh for themselves."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from domain.specs import Multimodal
from domain.tasks import Task
from engine import infer
from engine.data.targets import Scale
from engine.infer.predictor import Predictor
from engine.infer.readout import MOST_TOLD, readout
from engine.train.run import train
from support.encoders import TEXT

Trained = Callable[..., Predictor]
ROWS = [f"a {('red', 'blue', 'red and blue')[n % 3]} shape {n % 7}" for n in range(36)]


@pytest.fixture
def trained(tmp_path: Path, encoders: dict[str, Path]) -> Trained:
    def make(
        label: Callable[[str], Any], columns: tuple[str, ...] = ("text",), fusion: str = "concat"
    ) -> Predictor:
        """A model of some columns of text."""
        lines = [{**dict.fromkeys(columns, text), "label": label(text)} for text in ROWS]
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(line) + "\n" for line in lines))
        spec = {
            "towers": {name: {"encoder": TEXT} for name in columns},
            "fusion": {"type": fusion, "dim": 8},
            "hyperparameters": {"n_epochs": 15, "batch_size": 8, "learning_rate": 0.01},
        }
        train(
            Multimodal.model_validate(spec),
            training=data,
            encoders=encoders.__getitem__,
            cache=tmp_path / "cache",
            out=tmp_path / "out",
        )
        return infer.load(tmp_path / "out" / "model", encoders.__getitem__)

    return make


def _names(text: str) -> list[str]:
    return [name for name in ("red", "blue") if name in text]


def test_a_multilabel_model_names_every_label_of_half_and_more(trained: Trained) -> None:
    model = trained(_names)

    [prediction] = model.predict([{"text": "a red shape 3"}], top_k=2)

    assert set(prediction.probabilities or {}) == {"red", "blue"}
    assert prediction.labels == [n for n, p in (prediction.probabilities or {}).items() if p >= 0.5]
    assert [s.score for s in prediction.top] == sorted(
        (prediction.probabilities or {}).values(), reverse=True
    )
    assert (prediction.label, prediction.score, prediction.value) == (None, None, None)
    assert prediction.modalities.weights == {"text": 1.0}


def test_a_regression_answers_in_the_unit_of_its_data(trained: Trained) -> None:
    model = trained(lambda text: 1000.5 + 10 * len(text))

    answers = model.predict([{"text": text} for text in ROWS[:2]])

    for answer, text in zip(answers, ROWS, strict=False):
        assert answer.value == pytest.approx(1000.5 + 10 * len(text), abs=100)
        assert (answer.label, answer.labels, answer.top, answer.probabilities) == (None, None, (), None)


@pytest.mark.parametrize("fusion", ["mean", "sum", "max", "concat"])
def test_weights_of_a_fusion_without_gates_are_found_by_leaving_out(trained: Trained, fusion: str) -> None:
    model = trained(lambda text: _names(text)[0], ("one", "other"), fusion)

    whole, part = model.predict([{"one": ROWS[0], "other": ROWS[1]}, {"other": ROWS[1]}])

    assert whole.modalities.weights_by == "leave_one_out"
    assert math.isclose(sum((whole.modalities.weights or {}).values()), 1, abs_tol=1e-6)
    assert part.modalities.weights == {"other": 1.0}


@pytest.mark.parametrize("fusion", ["gated", "attention"])
def test_a_weighing_fusion_says_itself_what_each_column_counts_for(trained: Trained, fusion: str) -> None:
    model = trained(lambda text: _names(text)[0], ("one", "other"), fusion)

    whole, part = model.predict([{"one": ROWS[0], "other": ROWS[1]}, {"one": ROWS[0]}])

    with torch.no_grad():
        encoder = model.model.encoder("one")
        pooled = [encoder(encoder.prepare([text])) for text in ROWS[:2]]
        gates: Any = model.model.fusion
        [expected] = gates.gates(pooled, torch.tensor([[True, True]])).tolist()
    assert whole.modalities.weights_by == "gates"
    assert list((whole.modalities.weights or {}).values()) == pytest.approx(expected, abs=1e-5)
    assert part.modalities.weights == {"one": 1.0}


def test_a_large_mean_eats_no_digits_of_a_value() -> None:
    read = readout(Task.REGRESSION, [], Scale(1e9, 0.5))

    [[value]] = read.scores(torch.tensor([[0.5]])).tolist()

    assert read.words([value], 1) == {"value": 1e9 + 0.25}


def test_equally_likely_classes_come_in_their_own_order() -> None:
    read = readout(Task.CLASSIFICATION, ["a", "b", "c"], None)

    words = read.words(read.scores(torch.zeros(1, 3))[0].tolist(), 3)

    assert words["label"] == "a"
    assert [s.label for s in words["top"]] == ["a", "b", "c"]


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.MULTILABEL])
def test_of_very_many_classes_only_the_likeliest_are_told(task: Task) -> None:
    classes = [f"class {n}" for n in range(MOST_TOLD + 2)]
    scores = [1.0 - n / 1e6 for n in range(len(classes))]

    words = readout(task, classes, None).words(scores, 1000)
    few = readout(task, classes[:MOST_TOLD], None).words(scores[:MOST_TOLD], 1)

    assert words["probabilities"] is None
    assert [scored.label for scored in words["top"]] == classes[:1000]
    assert len(words.get("labels", [])) <= MOST_TOLD
    assert len(few["probabilities"]) == MOST_TOLD

"""Trainings whose trained towers see changed inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.data.dataset import LiveColumn
from engine.train import run as runs
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT
from support.tuning import Tuning

AUGMENTED: dict[str, Any] = {
    "image": {"encoder": IMAGE, "freeze": 0.5, "lr": 1e-3, "augment": {"preset": "light", "flip": 0.5}},
    "audio": {"encoder": AUDIO, "max_seconds": 0.5, "lora": {"r": 2}, "augment": "light"},
    "text": {"encoder": TEXT, "lora": {"r": 2}, "augment": {"drop": 0.3}},
}


@pytest.fixture
def shapes(tmp_path: Path, encoders: dict[str, Path]) -> Tuning:
    return Tuning(tmp_path, encoders, tiny_av(tmp_path, rows=24))


def _plain(towers: dict[str, Any]) -> dict[str, Any]:
    return {name: {k: v for k, v in tower.items() if k != "augment"} for name, tower in towers.items()}


def test_a_run_with_changed_inputs_goes_on_exactly(shapes: Tuning) -> None:
    shapes.resumes_exactly(AUGMENTED)


def test_training_sees_the_changes_and_evaluation_does_not(
    shapes: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate of next to nothing the network stays what it is: evaluations differ only if their inputs do."""
    still = {"learning_rate": 1e-12}
    towers = {name: {**tower, "lr": 1e-12} for name, tower in AUGMENTED.items()}
    shapes.go(_plain(towers), "plain", hyper=still)
    plain = shapes.losses(), shapes.losses("valid_loss")

    shapes.go(towers, "changed", hyper=still)

    assert shapes.losses("valid_loss") == pytest.approx(plain[1], rel=1e-5)
    assert not np.allclose(shapes.losses(), plain[0], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_an_epochs_inputs_are_the_same_whatever_thread_makes_them(
    shapes: Tuning, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(runs, "_workers", lambda place: 2)
    shapes.go(AUGMENTED, "usual")
    usual = shapes.losses()
    monkeypatch.setattr(runs, "_workers", lambda place: workers)

    shapes.go(AUGMENTED, "other")

    assert shapes.losses() == usual


def test_each_epoch_sees_other_changes_of_the_same_decoded_media(
    shapes: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[np.ndarray] = []
    changed: list[np.ndarray] = []
    decode, fetch = LiveColumn._decoded, LiveColumn._values

    def decoding(column: LiveColumn, row: int) -> list[Any]:
        values = decode(column, row)
        decoded.extend(v.copy() for v in values if row == 3 and column.change)
        return values

    def changing(column: LiveColumn, row: int) -> list[Any]:
        values = fetch(column, row)
        changed.extend(v for v in values if row == 3 and column.change)
        return values

    monkeypatch.setattr(LiveColumn, "_decoded", decoding)
    monkeypatch.setattr(LiveColumn, "_values", changing)

    shapes.go({"image": AUGMENTED["image"]}, hyper={"n_epochs": 3})

    assert len(decoded) == len(changed) == 3
    assert all(np.array_equal(decoded[0], other) for other in decoded)
    assert not any(np.array_equal(changed[0], other) for other in changed[1:])


@pytest.mark.slow
def test_changes_of_nothing_are_no_changes(shapes: Tuning) -> None:
    towers = {"text": {"encoder": TEXT, "lora": {"r": 2}}}
    shapes.go(towers, "plain")
    plain = shapes.losses()

    shapes.go({"text": {**towers["text"], "augment": "none"}}, "none")

    assert torch.equal(torch.tensor(shapes.losses()), torch.tensor(plain))

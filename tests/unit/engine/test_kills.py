"""A training that is killed with -9, anywhere and any number of times, tells what an unbroken one tells. To the bit."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.datasets import tiny_av
from support.encoders import IMAGE, TEXT
from support.killable import Killable, Series, newest_checkpoint

LIVE = {"image": {"encoder": IMAGE, "freeze": False, "lr": 1e-3}, "text": {"encoder": TEXT}}
CASES: dict[str, dict[str, Any]] = {
    "frozen, adamw": {"towers": {"image": {"encoder": IMAGE}, "text": {"encoder": TEXT}}},
    "trained, adamw": {"towers": LIVE},
    "trained, sgd, accumulated": {
        "towers": LIVE,
        "hyperparameters": {"optimizer": "sgd", "gradient_accumulation_steps": 2, "batch_size": 2},
    },
    "half frozen, bf16, patient": {
        "towers": {"text": {"encoder": TEXT, "freeze": 0.0}, "image": {"encoder": IMAGE, "freeze": 0.5}},
        "hyperparameters": {"precision": "bf16", "early_stopping_patience": 1, "eval_steps": 2},
    },
}


@pytest.fixture(scope="module")
def killable() -> Iterator[Killable]:
    made = Killable()
    yield made
    made.close()


class Case:
    """One spec, its unbroken run, and the runs that are killed."""

    def __init__(
        self, killable: Killable, folder: Path, encoders: dict[str, Path], spec: dict[str, Any]
    ) -> None:
        self._killable, self._folder, self._runs = killable, folder, 0
        hyper = {"n_epochs": 2, "batch_size": 4, "logging_steps": 2, "save_steps": 3, "save_total_limit": 2}
        self._asked = {
            "spec": {
                "fusion": {"dim": 8},
                **spec,
                "hyperparameters": hyper | spec.get("hyperparameters", {}),
            },
            "training": str(tiny_av(folder, rows=24, missing=0.2)),
            "encoders": {name: str(path) for name, path in encoders.items()},
        }
        self.unbroken, points = self.run("whole", [])
        assert points is not None
        self.points = points

    def run(self, name: str, kills: list[int]) -> tuple[Series, int | None]:
        """What all processes of one job told, the later over the earlier; each but the last dies at its point."""
        told: Series = {}
        outs: list[Path] = []
        for kill_at in (*kills, None):
            resume = newest_checkpoint(*outs)
            outs.append(self._folder / name / str(len(outs)))
            said, passed = self._killable.run(
                **self._asked,
                kill_at=kill_at,
                cache=str(self._folder / name / "cache"),
                out=str(outs[-1]),
                resume=str(resume) if resume else None,
            )
            told |= said
            if passed is not None:
                return told, passed
        raise AssertionError("the last process is not killed")

    def killed(self, kills: list[int]) -> Series:
        self._runs += 1
        return self.run(f"run-{self._runs}", kills)[0]


@pytest.fixture(params=CASES)
def case(
    request: pytest.FixtureRequest, killable: Killable, tmp_path: Path, encoders: dict[str, Path]
) -> Case:
    return Case(killable, tmp_path, encoders, CASES[request.param])


def test_a_training_that_is_killed_a_few_times_tells_what_an_unbroken_one_tells(case: Case) -> None:
    chance = random.Random(case.points)
    kills = [chance.randrange(case.points) for _ in range(3)]
    steps = [step for name, step in case.unbroken if name == "train_loss"]
    assert steps == list(range(2, steps[-1] + 1, 2))
    assert {"lr", "grad_norm", "valid_loss", "test_accuracy"} <= {name for name, _ in case.unbroken}

    assert case.killed(kills) == case.unbroken, kills


@pytest.mark.slow
def test_a_training_that_is_killed_at_any_point_tells_what_an_unbroken_one_tells(case: Case) -> None:
    for kill_at in range(case.points):
        assert case.killed([kill_at]) == case.unbroken, kill_at

"""What a training will hold in memory: the arithmetic of it. Real GPUs are not asked here."""

from pathlib import Path

import pytest
import torch

from engine.train.estimate import Estimate, counted, measured, of_a_row, one_pass
from engine.train.losses import cross_entropy
from engine.train.optimiser import make_optimiser
from support import features
from support.datasets import tiny_av
from support.encoders import IMAGE, TEXT
from support.tuning import Tuning

MB = 1_000_000


@pytest.mark.parametrize(
    "options",
    [{}, {"ema": 0.9}, {"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.0}],
    ids=["adamw", "average", "sgd", "sgd without momentum"],
)
def test_what_belongs_to_the_weights_is_what_an_optimiser_really_holds(options: dict[str, object]) -> None:
    model, plan = features.network(), features.plan(**options)
    model.fusion.requires_grad_(False)
    told = counted(model, plan)
    optimiser = make_optimiser(model, plan)
    for _, parameter in model.trained():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()

    def held(tensors: list[torch.Tensor]) -> int:
        return sum(t.numel() * t.element_size() for t in tensors if t.dim())  # less the steps' numbers

    states = [t for state in optimiser.state.values() for t in state.values() if t is not None]
    assert told.optimiser == held(states)
    assert told.gradients == held([p.grad for _, p in model.trained() if p.grad is not None])
    assert told.average == (told.gradients if "ema" in options else 0)
    assert told.weights == held([*model.parameters(), *model.buffers()]) > told.gradients


def test_a_rows_pass_is_what_more_rows_take_more() -> None:
    tried: list[int] = []

    def peak(rows: int) -> int:
        tried.append(rows)
        return 700 + 50 * rows + (1000 if len(tried) == 1 else 0)  # workspaces at the first call

    assert of_a_row(peak, 4) == 50
    assert of_a_row(lambda rows: 700, 4) == 0
    assert of_a_row(peak, 1) is None


@pytest.mark.parametrize(
    ("room", "rows"),
    [(10_000, 16), (1860, 16), (1840, 8), (1000, 8), (850, 4), (300, 2), (200, 1), (0, 1)],
)
def test_as_many_rows_as_fit_are_taken_at_once_in_powers_of_two(room: int, rows: int) -> None:
    found = Estimate(weights=500, gradients=20, optimiser=40, average=0, a_row=100 - 5)

    # Of the room 85 % count, and gradients and states are still to come.
    assert found.most_rows(16, room) == rows


def test_a_batch_that_is_no_power_of_two_is_taken_whole_or_cut_to_one() -> None:
    found = Estimate(weights=0, gradients=0, optimiser=0, average=0, a_row=100)

    assert found.most_rows(12, int(1201 / 0.85)) == 12
    assert found.most_rows(12, int(1190 / 0.85)) == 8


def test_what_was_not_measured_is_not_guessed() -> None:
    found = Estimate(weights=500 * MB, gradients=20 * MB, optimiser=40 * MB, average=0)

    assert found.most_rows(16, 1) == 16
    assert found.words(16).startswith("Memory, without what a row's pass takes: 560.0 MB (weights 500.0 MB,")
    assert "about 3.8 GB" in Estimate(500 * MB, 20 * MB, 40 * MB, 0, 200 * MB).words(16)


def test_a_probing_pass_changes_no_weight_and_leaves_no_gradient() -> None:
    model, plan = features.network(), features.plan()
    before = {name: p.detach().clone() for name, p in model.trained()}

    one_pass(model, features.examples(8), 4, plan, cross_entropy)

    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.trained())
    told = counted(model, plan)
    assert measured(told, model, features.examples(8), plan, cross_entropy) == told  # there is no GPU


def test_a_job_that_trains_an_encoder_is_told_what_it_holds_and_another_is_not(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    run = Tuning(tmp_path, encoders, tiny_av(tmp_path, rows=24))
    once = {"n_epochs": 1}

    run.go({"text": {"encoder": TEXT, "lora": {"r": 2}}, "image": {"encoder": IMAGE}}, "live", hyper=once)
    assert run.messages().count("Memory, without what a row's pass takes") == 1

    run.go({"text": {"encoder": TEXT}}, "cached", hyper=once)
    assert "Memory" not in run.messages()

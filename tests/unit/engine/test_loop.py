"""The training loop on a two-layer model: what it promises whatever the encoders are."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from domain.errors import EngineError
from engine.data.dataset import Examples
from engine.models.multimodal import Multimodal
from engine.train import checkpoint
from engine.train.checkpoint import Snapshot
from engine.train.loop import fine_tune
from engine.train.losses import Criterion, cross_entropy
from engine.train.optimiser import make_optimiser
from engine.train.plan import Plan
from engine.train.precision import Precision
from engine.train.run import _batches, _validator
from engine.train.words import Finished, Progress, StopAsked, Stopped
from support import features

GOLDEN = Path(__file__).parents[2] / "golden" / "tiny_loss_curve.json"


class Run:
    """One call of the loop, and all that it said."""

    def __init__(self, plan: Plan, model: Multimodal | None = None, train: Examples | None = None) -> None:
        self.plan = plan
        self.model = model or features.network()
        self.train = train or features.examples(plan.rows)
        self.validation = features.examples(12, seed=1)
        self.criterion: Criterion = cross_entropy
        self.said: list[Progress] = []
        self.saved: list[Snapshot] = []

    def go(
        self,
        resume: Snapshot | None = None,
        should_stop: Callable[[], str | None] = lambda: None,
        evaluate: Callable[[Multimodal], dict[str, float]] | None = None,
    ) -> Finished | Stopped:
        if resume is None:
            torch.manual_seed(0)
        ending, self.memory = fine_tune(
            self.model,
            _batches(self.train, self.plan, seed=0),
            self.plan,
            criterion=self.criterion,
            evaluate=evaluate
            or _validator(features.GOAL, self.validation, self.criterion, self.plan, lambda: None),
            report=self.said.append,
            save=self.saved.append,
            should_stop=should_stop,
            resume=resume,
        )
        return ending

    def metric(self, name: str) -> list[float]:
        return [p.metrics[name] for p in self.said if p.metrics and name in p.metrics]


def _after(asked: int) -> Callable[[], str | None]:
    """Answers None so many times, then `drain`."""
    left = iter(range(asked))
    return lambda: None if next(left, None) is not None else "drain"


def _through_disk(snapshot: Snapshot, folder: Path) -> Snapshot:
    checkpoint.write(folder / "step", snapshot)
    return checkpoint.read(folder / "step")


def test_the_loss_curve_of_a_tiny_model_is_the_golden_one() -> None:
    run = Run(features.plan(n_epochs=4))

    run.go()

    assert run.metric("train_loss") == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4)


def test_two_runs_with_one_seed_give_the_same_losses() -> None:
    one, other = Run(features.plan()), Run(features.plan())

    one.go()
    other.go()

    assert one.metric("train_loss") == other.metric("train_loss")
    assert one.metric("valid_loss") == other.metric("valid_loss")


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("asked", [0, 1, 5, 13])
def test_a_stopped_run_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(
    tmp_path: Path, asked: int, accumulation: int
) -> None:
    plan = features.plan(gradient_accumulation_steps=accumulation, logging_steps=2)
    whole, first, second = Run(plan), Run(plan), Run(plan, model=features.network(seed=9))
    whole.go()

    stopped = first.go(should_stop=_after(asked))
    torch.manual_seed(123)
    second.go(resume=_through_disk(first.saved[-1], tmp_path))

    assert stopped == Stopped(first.memory.step, "drain")
    assert first.metric("train_loss") + second.metric("train_loss") == whole.metric("train_loss")
    assert first.metric("valid_loss") + second.metric("valid_loss") == whole.metric("valid_loss")
    assert second.memory.history == whole.memory.history
    for (_, resumed), (_, unbroken) in zip(second.model.trained(), whole.model.trained(), strict=True):
        assert torch.equal(resumed, unbroken)


OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0.0},
    "linear": {"lr_scheduler_type": "linear"},
    "constant": {"lr_scheduler_type": "constant", "warmup_ratio": 0.0},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_stopped_run_goes_on_exactly_whatever_the_options(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "fp16":
        monkeypatch.setattr("engine.train.loop.scaler", _small_scaler)
    plan = features.plan(**OPTIONS[kind])
    whole, first, second = Run(plan), Run(plan), Run(plan, model=features.network(seed=9))
    whole.go()

    first.go(should_stop=_after(9))
    second.go(resume=_through_disk(first.saved[-1], tmp_path))

    assert first.metric("train_loss") + second.metric("train_loss") == whole.metric("train_loss")
    assert second.metric("train_loss")
    assert second.memory.history == whole.memory.history
    assert second.memory.scaling == whole.memory.scaling
    for (_, resumed), (_, unbroken) in zip(second.model.trained(), whole.model.trained(), strict=True):
        assert torch.equal(resumed, unbroken)


def _small_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """What a CUDA device has for fp16, on the CPU, and quick to change its scale."""
    return torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=3)


def test_the_scale_of_fp16_grows_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.train.loop.scaler", _small_scaler)
    run = Run(features.plan(precision="fp16", n_epochs=1))

    run.go()

    assert run.memory.scaling["scale"] == 16.0 * 4


def test_a_step_of_too_large_a_scale_is_not_taken_and_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    huge = torch.amp.GradScaler("cpu", init_scale=2.0**120, backoff_factor=2.0**-110)
    monkeypatch.setattr("engine.train.loop.scaler", lambda precision, device: huge)
    run = Run(features.plan(precision="fp16", n_epochs=1))

    ending = run.go()

    assert ending.steps == 6
    assert len(run.metric("grad_norm")) == 5  # of the first step there was none
    assert len(run.metric("train_loss")) == 6


def test_half_precision_stays_near_the_full_one() -> None:
    full, half = Run(features.plan()), Run(features.plan(precision="bf16"))

    full.go()
    half.go()

    assert half.metric("train_loss") != full.metric("train_loss")
    assert half.metric("train_loss") == pytest.approx(full.metric("train_loss"), rel=0.1)
    assert all(p.dtype == torch.float32 for _, p in half.model.trained())


@pytest.mark.parametrize(
    ("schedule", "middle", "last"), [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0)]
)
def test_a_schedule_warms_up_and_then_falls_as_it_is_named(schedule: str, middle: float, last: float) -> None:
    plan = features.plan(n_epochs=20, warmup_ratio=0.1, lr_scheduler_type=schedule)
    assert plan.total_steps == 120

    factors = [plan.lr_factor(step) for step in range(121)]

    assert factors[:12] == pytest.approx([(n + 1) / 12 for n in range(12)])
    assert factors[12] == 1.0
    assert factors[12 + 54] == pytest.approx(middle, abs=0.01)
    assert factors[120] == pytest.approx(last, abs=1e-6)


def test_sgd_takes_the_steps_of_sgd() -> None:
    model = features.network()
    before = {name: p.detach().clone() for name, p in model.trained()}
    plan = features.plan(optimizer="sgd", momentum=0.5, weight_decay=0.0, learning_rate=0.1)
    optimiser = make_optimiser(model, plan)

    for _ in range(2):
        for _, parameter in model.trained():
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()

    for name, parameter in model.trained():
        torch.testing.assert_close(parameter, before[name] - 0.1 * (1 + 1.5))


def test_a_metric_that_was_not_defined_is_worse_than_any_value_of_it() -> None:
    run = Run(features.plan(n_epochs=3, metric_for_best_model="roc_auc"))
    seen = iter([{"valid_loss": 0.1}, {"valid_loss": 0.9, "valid_roc_auc": 0.2}, {"valid_loss": 0.05}])

    run.go(evaluate=lambda model: next(seen))

    assert run.memory.best_metrics == {"valid_loss": 0.9, "valid_roc_auc": 0.2}


def test_a_stop_during_an_evaluation_keeps_the_last_checkpoint_the_last() -> None:
    run = Run(features.plan(save_steps=4, eval_steps=6))

    def interrupted(model: Multimodal) -> dict[str, float]:
        raise StopAsked("cancel")

    ending = run.go(evaluate=interrupted)

    assert ending == Stopped(6, "cancel")
    assert len(run.saved) == 1


def test_gradients_are_clipped() -> None:
    run = Run(features.plan(max_grad_norm=1e-6, learning_rate=0.01, weight_decay=0.0, n_epochs=1))
    clipped: list[float] = []
    step = torch.optim.AdamW.step

    def watched(optimiser: torch.optim.AdamW) -> None:
        grads = [p.grad for g in optimiser.param_groups for p in g["params"] if p.grad is not None]
        clipped.append(torch.cat([g.flatten() for g in grads]).norm().item())
        step(optimiser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        run.go()

    assert max(clipped) <= 1.01e-6
    assert min(run.metric("grad_norm")) > 1e-3  # what is logged is the norm before clipping


def test_training_ends_when_the_metric_stops_getting_better() -> None:
    run = Run(features.plan(n_epochs=10, early_stopping_patience=2))
    scores = iter([0.5, 0.6, 0.6, 0.4, 0.9])

    ending = run.go(evaluate=lambda model: {"valid_accuracy": next(scores)})

    assert ending.steps == 4 * run.plan.steps_per_epoch
    assert isinstance(ending, Finished)
    assert ending.metrics == {"valid_accuracy": 0.6}


def test_the_best_weights_are_put_back_at_the_end() -> None:
    run = Run(features.plan(n_epochs=3))
    scores, seen = iter([0.5, 0.9, 0.1]), []

    def evaluate(model: Multimodal) -> dict[str, float]:
        seen.append([p.detach().clone() for _, p in model.trained()])
        return {"valid_accuracy": next(scores)}

    run.go(evaluate=evaluate)

    assert run.memory.best_step == 2 * run.plan.steps_per_epoch
    assert all(torch.equal(p, best) for (_, p), best in zip(run.model.trained(), seen[1], strict=True))


def test_less_is_better_when_the_loss_picks_the_best() -> None:
    run = Run(features.plan(n_epochs=3, metric_for_best_model="valid_loss"))
    losses = iter([0.5, 0.3, 0.4])

    run.go(evaluate=lambda model: {"valid_loss": next(losses)})

    assert run.memory.best_metrics == {"valid_loss": 0.3}


def test_of_equal_accuracies_the_one_with_less_loss_is_best() -> None:
    run = Run(features.plan(n_epochs=3))
    losses = iter([0.5, 0.3, 0.4])

    run.go(evaluate=lambda model: {"valid_accuracy": 0.9, "valid_loss": next(losses)})

    assert run.memory.best_step == 2 * run.plan.steps_per_epoch


def test_accumulated_micro_batches_make_the_step_of_one_large_batch() -> None:
    quiet = {"n_epochs": 2, "max_grad_norm": 1e6}
    large = Run(features.plan(batch_size=8, **quiet), model=_still_network())
    small = Run(features.plan(batch_size=2, gradient_accumulation_steps=4, **quiet), model=_still_network())

    large.go()
    small.go()

    assert small.metric("train_loss") == pytest.approx(large.metric("train_loss"), rel=1e-4)


def _still_network() -> Multimodal:
    """Without dropout, whose draws depend on the batches' sizes."""
    model = features.network(dropout=0.0)
    model.fusion.modality_dropout = 0.0
    return model


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    run = Run(features.plan(n_epochs=10, warmup_ratio=0.1, learning_rate=0.01))

    run.go()

    rates = run.metric("lr")
    assert rates.index(max(rates)) in (5, 6)
    assert max(rates) == pytest.approx(0.01)
    assert rates[-1] < 0.0001
    assert rates[:6] == sorted(rates[:6])


def test_norms_and_biases_are_not_decayed() -> None:
    model = features.network()

    groups = make_optimiser(model, features.plan()).param_groups

    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    decayed = {name for name, p in model.trained() if decay[id(p)] > 0}
    assert decayed == {"fusion.weight", "head.1.weight"}


def test_a_loss_that_is_no_number_ends_the_run_with_advice() -> None:
    train = features.examples(24)
    train.columns["left"].features[:] = float("inf")

    with pytest.raises(EngineError, match="lower the learning rate") as ended:
        Run(features.plan(), train=train).go()

    assert ended.value.code == "loss_not_finite"


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    first = Run(features.plan())
    first.go(should_stop=_after(3))

    with pytest.raises(EngineError) as refused:
        Run(features.plan(rows=16)).go(resume=_through_disk(first.saved[-1], tmp_path))

    assert refused.value.code == "checkpoint_mismatch"


CONSTANT = {"lr_scheduler_type": "constant", "warmup_steps": 8}


@pytest.mark.parametrize("logging_steps", [1, 4])
def test_epochs_raised_after_the_end_give_the_losses_of_the_longer_run(
    tmp_path: Path, logging_steps: int
) -> None:
    options = {**CONSTANT, "logging_steps": logging_steps}
    short, whole = Run(features.plan(n_epochs=1, **options)), Run(features.plan(n_epochs=3, **options))
    longer = Run(features.plan(n_epochs=3, **options), model=features.network(seed=9))
    whole.go()
    short.go()

    longer.go(resume=_through_disk(short.saved[-1], tmp_path))

    def later(run: Run) -> list[dict[str, float]]:
        return [row for row in run.memory.history if row["step"] > 6]

    assert later(longer)
    assert later(longer) == later(whole)
    assert longer.memory.best_metrics == whole.memory.best_metrics


def test_a_run_of_raised_epochs_follows_the_longer_schedule_and_is_itself_exact(tmp_path: Path) -> None:
    short, plan = Run(features.plan(n_epochs=1)), features.plan(n_epochs=3)
    short.go()
    raised = _through_disk(short.saved[-1], tmp_path)
    unbroken, first, second = (Run(plan, model=features.network(seed=n)) for n in (7, 8, 9))
    unbroken.go(resume=raised)

    first.go(resume=checkpoint.read(tmp_path / "step"), should_stop=_after(5))
    second.go(resume=_through_disk(first.saved[-1], tmp_path / "second"))

    assert second.memory.history == unbroken.memory.history
    assert unbroken.metric("lr")[0] == pytest.approx(plan.head_lr * plan.lr_factor(6))
    assert short.metric("lr")[-1] < unbroken.metric("lr")[0]


def test_a_run_that_lost_its_patience_goes_on_when_it_is_given_more(tmp_path: Path) -> None:
    impatient = Run(features.plan(n_epochs=10, early_stopping_patience=1))
    scores = iter([0.5, 0.4])
    impatient.go(evaluate=lambda model: {"valid_accuracy": next(scores)})
    patient = Run(features.plan(n_epochs=3))

    ending = patient.go(resume=_through_disk(impatient.saved[-1], tmp_path))

    assert impatient.memory.step == 12
    assert ending.steps == 18


def test_a_checkpoint_behind_the_end_says_that_there_are_too_few_epochs(tmp_path: Path) -> None:
    first = Run(features.plan(n_epochs=2))
    first.go()

    with pytest.raises(EngineError, match="at step 12, and 1 epochs end at step 6") as refused:
        Run(features.plan(n_epochs=1)).go(resume=_through_disk(first.saved[-1], tmp_path))

    assert refused.value.param == "multimodal.hyperparameters.n_epochs"


def test_a_save_comes_at_the_first_evaluation_and_every_save_steps() -> None:
    automatic, counted = Run(features.plan(n_epochs=1)), Run(features.plan(n_epochs=2, save_steps=5))

    automatic.go()
    counted.go()

    assert len(automatic.saved) == 1
    assert len(counted.saved) == 3  # steps 5, 10 and the last


def test_without_validation_rows_the_last_weights_stay() -> None:
    run = Run(features.plan(n_epochs=1))
    run.validation = features.examples(0)

    ending = run.go()

    assert ending == Finished(6, {})


def test_the_loop_loads_no_encoder_library() -> None:
    asked = "import sys, engine.train.loop; print('transformers' in sys.modules)"

    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "False"


def test_progress_says_where_training_is_and_how_long_it_will_take() -> None:
    run = Run(features.plan(n_epochs=2))

    run.go()

    last = run.said[-1]
    assert (last.epoch, last.n_epochs, last.step, last.total_steps) == (2, 2, 12, 12)
    assert last.eta_s == 0
    assert all(p.stage == "training" and (p.samples_per_second or 1) > 0 for p in run.said)

"""The moving average of the weights: what it is, and that it is what is evaluated and kept."""

from pathlib import Path

import pytest
import torch

from engine.models.multimodal import Multimodal
from engine.train.average import Average
from engine.train.checkpoint import Snapshot, read, write
from engine.train.loop import fine_tune
from engine.train.plan import Plan
from engine.train.run import Finished, _batches
from support import features
from support.datasets import tiny_av
from support.encoders import IMAGE, TEXT
from support.tuning import Tuning


def test_the_average_follows_its_recursion() -> None:
    model = features.network()
    average = Average(model, 0.8)
    expected = {name: p.detach().clone() for name, p in model.trained()}

    for step in range(1, 60):
        with torch.no_grad():
            for _, parameter in model.trained():
                parameter.add_(torch.randn(parameter.shape))
        average.update(step)
        decay = min(0.8, (1 + step) / (10 + step))
        for name, p in model.trained():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()

    for name, value in average.state().items():
        torch.testing.assert_close(value, expected[name])


def _run(
    plan: Plan, evaluate: object, resume: Snapshot | None = None, seed: int = 0
) -> tuple[Multimodal, list[Snapshot], Finished]:
    model, saved = features.network(seed=seed), []
    torch.manual_seed(0)
    ending, _ = fine_tune(
        model,
        _batches(features.examples(plan.rows), plan, seed=0),
        plan,
        evaluate=evaluate,  # type: ignore[arg-type]
        report=lambda _: None,
        save=saved.append,
        should_stop=lambda: None,
        resume=resume,
    )
    assert isinstance(ending, Finished)
    return model, saved, ending


def _copy(model: Multimodal) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.trained()}


def test_the_averaged_weights_are_evaluated_and_kept_and_training_goes_on_with_its_own() -> None:
    seen: list[dict[str, torch.Tensor]] = []
    scores = iter([0.5, 0.9, 0.1, 0.2])

    def evaluate(model: Multimodal) -> dict[str, float]:
        seen.append(_copy(model))
        return {"valid_accuracy": next(scores)}

    plain, unevaluated, _ = _run(features.plan(), None)
    model, saved, _ = _run(features.plan(ema=0.9), evaluate)

    last = saved[-1]
    for name, weight in unevaluated[-1].weights.items():
        assert torch.equal(last.weights[name], weight)  # the average changes no step
        assert not torch.equal(last.average[name], weight)
        assert torch.equal(last.average[name], seen[3][name])
        assert torch.equal(last.best[name], seen[1][name])
        assert torch.equal(dict(model.trained())[name], seen[1][name])
        assert torch.equal(dict(plain.trained())[name], weight)


def test_without_evaluations_the_last_average_is_what_stays() -> None:
    model, saved, _ = _run(features.plan(ema=0.9), None)

    for name, p in model.trained():
        assert torch.equal(p, saved[-1].average[name])


def test_a_checkpoint_holds_the_average_and_one_without_it_no_file_for_it(tmp_path: Path) -> None:
    for name, ema in {"with": 0.9, "without": None}.items():
        _, saved, _ = _run(features.plan(ema=ema), None)
        write(tmp_path / name, saved[-1])

    kept = read(tmp_path / "with").average
    assert kept.keys() == read(tmp_path / "with").weights.keys()
    assert not (tmp_path / "without" / "average.safetensors").exists()
    assert read(tmp_path / "without").average == {}


@pytest.mark.parametrize("ema", [0.5, pytest.param(0.999, marks=pytest.mark.slow)])
def test_a_run_with_an_average_goes_on_exactly(tmp_path: Path, encoders: dict[str, Path], ema: float) -> None:
    run = Tuning(tmp_path, encoders, tiny_av(tmp_path, rows=24))
    image = {"encoder": IMAGE, "freeze": 0.5, "lr": 1e-3} if ema == 0.5 else {"encoder": IMAGE}

    run.resumes_exactly({"image": image, "text": {"encoder": TEXT}}, hyper={"ema": ema})

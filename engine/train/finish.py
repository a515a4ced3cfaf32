"""What a finished run leaves: the test's numbers, the model folder, the result files."""

import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domain.specs import Multimodal
from domain.tasks import METRICS, Task
from engine.data.conversations import Conversations
from engine.data.splits import Splits
from engine.models.multimodal import Multimodal as Network
from engine.models.store import Card, save_model
from engine.models.vision_language import VisionLanguage
from engine.train import answers, metrics, results
from engine.train.checkpoint import Memory
from engine.train.losses import Criterion
from engine.train.plan import Plan
from engine.train.prepare import Inputs
from engine.train.words import Finished, Progress, ShouldStop, StopAsked, Stopped
from kernels import dispatch


def finish(
    model: Network,
    spec: Multimodal,
    splits: Splits,
    inputs: Inputs,
    made: Plan,
    memory: Memory,
    loss: Criterion,
    *,
    out: Path,
    report: Callable[[Progress], None],
    should_stop: ShouldStop,
    started: dict[str, Any] | None = None,
) -> Finished | Stopped:
    """Tests the best weights once, if there are test rows, and writes everything. `spec` is all decided.

    `started` is what was taken over from another model.
    """
    report(Progress("evaluating", made.n_epochs, made.n_epochs, memory.step, made.total_steps))
    try:
        tested = _tested(model, splits, inputs, loss, should_stop)
    except StopAsked as asked:
        return Stopped(memory.step, asked.why)
    found = dict(memory.best_metrics) | timing(memory, inputs) | inputs.hit_rates()
    found |= {f"test_{name}": value for name, value in tested.get("metrics", {}).items()}
    memory.history[-1].update(
        {name: value for name, value in found.items() if name not in memory.best_metrics}
    )
    goal = splits.goal
    card = Card(spec, splits.schema, goal.classes, found, goal.scale, splits.statistics)
    save_model(out / "model", model, card)
    results.write_steps(out / "results", memory.history)
    told = _report(spec, splits, memory, found, tested) | ({"start": started} if started else {})
    results.write_report(out / "results", told)
    report(_last_word(splits.goal.task, made, memory, found))
    return Finished(memory.step, found, spec.model_dump(mode="json", by_alias=True))


def timing(memory: Memory, inputs: Inputs) -> dict[str, float]:
    """Seconds of a training pass: the first one with all its decoding and encoding, and the later ones."""
    first, *later = memory.epoch_seconds
    first += inputs.encoding_seconds
    found = {"first_epoch_seconds": first}
    found["data_wait_fraction"] = memory.waited_seconds / sum(memory.epoch_seconds)
    if later:
        found["data_wait_fraction_later"] = sum(memory.epoch_waits[1 : len(later) + 1]) / sum(later)
        found["epoch_seconds"] = statistics.median(later)
        speedup = inputs.speedup(first, found["epoch_seconds"])
        found |= {"cached_epoch_speedup": speedup} if speedup is not None else {}
    return found


def _tested(
    model: Network, splits: Splits, inputs: Inputs, loss: Criterion, should_stop: ShouldStop
) -> dict[str, Any]:
    """In fp32, in which the model will answer."""
    if len(inputs.test) == 0:
        return {}
    if isinstance(model, VisionLanguage) and isinstance(inputs.test, Conversations):
        found, shown = answers.measured(model, inputs.test, should_stop)
        return {"metrics": found, "answers": shown}
    outputs, targets = metrics.predict(model, inputs.test, should_stop), inputs.test.targets
    found = metrics.scores(splits.goal, outputs, targets, loss)
    return {"metrics": found, **metrics.details(splits.goal, outputs, targets)}


def _report(
    spec: Multimodal, splits: Splits, memory: Memory, found: dict[str, float], tested: dict[str, Any]
) -> dict[str, Any]:
    goal = splits.goal
    return {
        "task": goal.task,
        "classes": goal.classes,
        "target": asdict(goal.scale) if goal.scale else None,
        "counts": {
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        },
        "bad_rows": {"skipped": splits.skipped, "masked": splits.masked},
        "steps": memory.step,
        "micro_batch_size": memory.micro_batch or spec.hyperparameters.batch_size,
        "best_step": memory.best_step or memory.step,
        "metrics": found,
        "test": tested or None,
        "cached_epoch_speedup": found.get("cached_epoch_speedup"),
        "kernels": dispatch.ran(),
        "hyperparameters": spec.hyperparameters.model_dump(mode="json"),
    }


def _last_word(task: Task, made: Plan, memory: Memory, found: dict[str, float]) -> Progress:
    name = METRICS[task][0]
    tested = f"Test {name} {found[f'test_{name}']:.4f}." if f"test_{name}" in found else "No test rows."
    chosen = (
        f"The best step is {memory.best_step}. "
        if memory.best_step
        else "No validation rows: the last step. "
    )
    fresh = {name: value for name, value in found.items() if name not in memory.best_metrics}
    return Progress(
        "evaluating",
        made.n_epochs,
        made.n_epochs,
        memory.step,
        made.total_steps,
        metrics=fresh,
        message=chosen + tested,
    )

"""What a finished run leaves: the test's numbers, the model folder, the result files."""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from domain.specs import Multimodal
from domain.tasks import METRICS, Task
from engine.data.conversations import Conversations
from engine.data.splits import Splits
from engine.models.multimodal import Multimodal as Network
from engine.models.store import Card, save_model
from engine.models.vision_language import VisionLanguage
from engine.report.confused import confused_pairs
from engine.report.cost import Clock, cost
from engine.report.features import Tensors
from engine.report.sections import Parts, Told, compare
from engine.train import answers, metrics, results
from engine.train.checkpoint import Memory
from engine.train.losses import Criterion
from engine.train.plan import Plan
from engine.train.prepare import Inputs
from engine.train.words import Finished, Progress, ShouldStop, StopAsked, Stopped, heed
from kernels import dispatch

#: Of report.json: raised when a name in it changes its meaning.
REPORT_VERSION = 1


def finish(
    model: Network,
    spec: Multimodal,
    splits: Splits,
    inputs: Inputs,
    made: Plan,
    memory: Memory,
    loss: Criterion,
    *,
    start: Tensors,
    clock: Clock,
    out: Path,
    report: Callable[[Progress], None],
    should_stop: ShouldStop,
    started: dict[str, Any] | None = None,
) -> Finished | Stopped:
    """Tests the best weights once, if there are test rows, and writes everything. `spec` is all decided.

    `start` are the towers' weights before training, as far as training changed them; `started` is what was taken over
    from another model.
    """
    report(Progress("evaluating", made.n_epochs, made.n_epochs, memory.step, made.total_steps))
    try:
        with clock.during("evaluating"):
            outputs, measured = _measured(model, splits, inputs, loss, should_stop)
        # What a report reads and runs must not count as what training did.
        ran = dispatch.ran()
        found = dict(memory.best_metrics) | timing(memory, inputs) | inputs.hit_rates()
        with clock.during("report"):
            told = compare(
                spec.report,
                model,
                splits.goal,
                Parts(inputs.train, inputs.validation, inputs.test),
                start,
                outputs,
                passes=math.ceil(memory.step / made.steps_per_epoch),
                heed=partial(heed, should_stop),
            )
    except StopAsked as asked:
        results.write_curves(out / "results", memory.history, memory.epoch_seconds)
        return Stopped(memory.step, asked.why)
    if len(inputs.test):
        found |= {f"test_{name}": value for name, value in measured["metrics"].items()}
    found |= told.metrics
    memory.history[-1].update(
        {name: value for name, value in found.items() if name not in memory.best_metrics}
    )
    goal = splits.goal
    card = Card(spec, splits.schema, goal.classes, found, goal.scale, splits.statistics)
    save_model(out / "model", model, card)
    whole = _report(spec, splits, memory, found, measured, told)
    whole |= {"kernels": ran, "cost": _cost(clock, model, made, memory)}
    if started:
        whole["start"] = started
    results.write_curves(out / "results", memory.history, memory.epoch_seconds)
    results.write_report(out / "results", whole, memory.history)
    report(_last_word(splits.goal.task, made, memory, found, told))
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


def _measured(
    model: Network, splits: Splits, inputs: Inputs, loss: Criterion, should_stop: ShouldStop
) -> tuple[Tensor | None, dict[str, Any]]:
    """Of the test rows, or of the validation rows where there are none. In fp32, in which the model will answer."""
    rows = inputs.test if len(inputs.test) else inputs.validation
    if len(rows) == 0:
        return None, {}
    if isinstance(model, VisionLanguage) and isinstance(rows, Conversations):
        written, shown = answers.measured(model, rows, should_stop)
        return None, {"metrics": written, "answers": shown}
    outputs = metrics.predict(model, rows, should_stop)
    found: dict[str, Any] = {"metrics": metrics.scores(splits.goal, outputs, rows.targets, loss)}
    found |= metrics.details(splits.goal, outputs, rows.targets)
    if splits.goal.task is Task.MULTILABEL:
        found["threshold"] = 0.5
    if "confusion_matrix" in found:
        found["most_confused"] = confused_pairs(found["confusion_matrix"], splits.goal.classes)
    return outputs, found


def _report(
    spec: Multimodal,
    splits: Splits,
    memory: Memory,
    found: dict[str, float],
    measured: dict[str, Any],
    told: Told,
) -> dict[str, Any]:
    goal, is_tested = splits.goal, len(splits.test) > 0
    described = spec.model_dump(mode="json", by_alias=True)
    return {
        "version": REPORT_VERSION,
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
        "test": measured if is_tested else None,
        # The rows that chose the best step look better than others would.
        "validation": measured if measured and not is_tested else None,
        "measured_on": "test" if is_tested else "validation" if measured else None,
        **told.sections,
        "left_out": told.left_out,
        "cached_epoch_speedup": found.get("cached_epoch_speedup"),
        "towers": {
            name: {"type": str(splits.schema.columns[name].type), "encoder": tower.encoder}
            for name, tower in sorted(spec.towers.items())
        },
        "fusion": described["fusion"],
        "loss": described["loss"],
        "hyperparameters": described["hyperparameters"],
    }


def _cost(clock: Clock, model: Network, made: Plan, memory: Memory) -> dict[str, Any]:
    return cost(
        clock,
        next(model.parameters()).device,
        training=sum(memory.epoch_seconds),
        rows_trained=memory.step / made.steps_per_epoch * made.rows,
        waited=memory.waited_seconds,
    )


def _last_word(task: Task, made: Plan, memory: Memory, found: dict[str, float], told: Told) -> Progress:
    name = METRICS[task][0]
    tested = f"Test {name} {found[f'test_{name}']:.4f}." if f"test_{name}" in found else "No test rows."
    chosen = (
        f"The best step is {memory.best_step}. "
        if memory.best_step
        else "No validation rows: the last step. "
    )
    gain = told.sections.get("unimodal_baselines", {}).get("fusion_gain", {}).get("sentence", "")
    fresh = {name: value for name, value in found.items() if name not in memory.best_metrics}
    return Progress(
        "evaluating",
        made.n_epochs,
        made.n_epochs,
        memory.step,
        made.total_steps,
        metrics=fresh,
        message=f"{chosen}{tested} {gain}".rstrip(),
    )

"""The training loop, one plain function. Knows no file, job or encoder library: all it needs is an argument."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch

from domain.errors import EngineError
from engine.data.collate import Batch, Slice
from engine.models.multimodal import Multimodal
from engine.train.average import Average
from engine.train.checkpoint import Memory, Snapshot, Tensors, restore_rng, rng_state
from engine.train.gpu_memory import halved
from engine.train.losses import Criterion, cross_entropy
from engine.train.optimiser import make_optimiser, optimiser_state, restore_optimiser
from engine.train.plan import Plan
from engine.train.precision import scaler
from engine.train.step import Step
from engine.train.watch import Watch
from engine.train.words import Finished, Progress, ShouldStop, StopAsked, Stopped

#: (epoch, first step, rows at once) -> the epoch's micro-batches from that step on.
Batches = Callable[[int, int, int], Iterable[tuple[Slice, Batch]]]
#: Validation metrics; raises StopAsked.
Evaluate = Callable[[Multimodal], dict[str, float]]


def fine_tune(
    model: Multimodal,
    batches: Batches,
    plan: Plan,
    *,
    criterion: Criterion = cross_entropy,
    evaluate: Evaluate | None,
    report: Callable[[Progress], None],
    save: Callable[[Snapshot], None],
    should_stop: ShouldStop,
    resume: Snapshot | None = None,
    at_once: int = 0,
    halves: bool = True,
) -> tuple[Finished | Stopped, Memory]:
    """Trains `model` in place; at the end it holds the best weights seen (without `evaluate`, the last).

    With a moving average (`plan.ema`) its weights are the ones that are evaluated, kept, and held at the end.
    `halves`: a micro-batch that does not fit in memory is made smaller. Of a contrastive loss that would be another loss.
    `at_once` are the rows of a micro-batch to begin with, if fewer than the plan's; the steps are the same.
    """
    optimiser = make_optimiser(model, plan)
    memory, best = _restored(resume, model, optimiser, plan) if resume else (Memory(micro_batch=at_once), {})
    scaling = scaler(plan.precision, next(model.parameters()).device)
    if memory.scaling:
        scaling.load_state_dict(memory.scaling)
    average = Average(model, plan.ema) if plan.ema is not None else None
    if average is not None and resume and resume.average:
        average.restore(resume.average)
    step = Step(model, plan, criterion, optimiser, scaling)
    watch = Watch(memory, plan)
    rng = rng_state()

    def snapshot() -> Snapshot:
        averaged = average.state() if average is not None else {}
        state = optimiser_state(model, optimiser)
        return Snapshot(memory, _weights(model), best, state, rng, _shape(plan), average=averaged)

    while memory.step < plan.total_steps and not _gives_up(memory, plan):
        model.train()
        epoch, first = divmod(memory.step, plan.steps_per_epoch)
        size = memory.micro_batch or plan.batch_size
        for piece, batch in watch.waiting(batches(epoch, first, size)):
            why = should_stop()
            if why is not None:
                save(snapshot())
                return Stopped(memory.step, why), memory
            if not step.add(piece, batch):
                if not halves:
                    raise _too_many(len(piece.rows))
                memory.micro_batch = halved(min(size, len(piece.rows)))
                restore_rng(rng)
                report(watch.told(_smaller(memory, plan)))
                break
            if not piece.ends_step:
                continue
            taken = step.take(memory.step)
            rng = rng_state()
            memory.scaling = scaling.state_dict()
            watch.count(taken.loss)
            if average is not None and taken.grad_norm is not None:
                average.update(memory.step)
            if watch.is_due(plan.logging_steps):
                report(watch.log(lr=taken.lr, grad_norm=taken.grad_norm))
            evaluates = evaluate is not None and watch.is_due(plan.eval_steps)
            if evaluate is not None and evaluates:
                try:
                    with average.in_place() if average is not None else nullcontext():
                        metrics = evaluate(model)
                        best = _weights(model) if _is_best(memory, plan, metrics) else best
                except StopAsked as asked:
                    # This step's evaluation is still to come, so the last checkpoint must stay the last.
                    return Stopped(memory.step, asked.why), memory
                model.train()
                report(watch.evaluated(metrics))
                # Whatever measuring drew, the run that goes on from here must not draw again.
                rng = rng_state()
            is_over = memory.step == plan.total_steps or _gives_up(memory, plan)
            # The last step is always kept: another run may go on from it with more epochs.
            if is_over or watch.is_save_due(evaluates):
                save(snapshot())
                watch.saved()
            if is_over:
                break
            watch.resume()
    if best:
        model.load_state_dict(best, strict=False)
    elif average is not None:
        average.settle()
    return Finished(memory.step, dict(memory.best_metrics)), memory


def _too_many(rows: int) -> EngineError:
    message = (
        f"a batch of {rows} rows does not fit in the GPU's memory, and a contrastive loss of fewer rows at once would be "
        "another loss, with fewer negatives; set a smaller batch_size, hyperparameters.gradient_checkpointing, "
        "or shorten the inputs (max_length, max_seconds, num_frames, image_size)"
    )
    return EngineError("out_of_memory", message, param="multimodal.hyperparameters.batch_size")


def _smaller(memory: Memory, plan: Plan) -> str:
    rows = plan.batch_size * plan.accumulation
    return (
        f"The GPU's memory is too small for so many rows at once: the step is done again with {memory.micro_batch}, "
        f"and as many times as it takes. A step is still of {rows} rows."
    )


def _is_best(memory: Memory, plan: Plan, metrics: dict[str, float]) -> bool:
    """Notes the evaluation and says whether it is the best so far."""
    memory.stale += 1
    memory.latest_metrics = metrics
    if memory.best_metrics and plan.rank(metrics) <= plan.rank(memory.best_metrics):
        return False
    memory.best_metrics, memory.best_step, memory.stale = metrics, memory.step, 0
    return True


def _gives_up(memory: Memory, plan: Plan) -> bool:
    return plan.patience is not None and memory.stale >= plan.patience


def _weights(model: Multimodal) -> Tensors:
    return {name: p.detach().to("cpu", copy=True).contiguous() for name, p in model.trained()}


def _shape(plan: Plan) -> dict[str, int]:
    return {"rows": plan.rows, "batch_size": plan.batch_size, "accumulation": plan.accumulation}


def _restored(
    resume: Snapshot, model: Multimodal, optimiser: torch.optim.Optimizer, plan: Plan
) -> tuple[Memory, Tensors]:
    trained = {name: p.shape for name, p in model.trained()}
    if resume.shape != _shape(plan) or trained != {n: w.shape for n, w in resume.weights.items()}:
        raise EngineError("checkpoint_mismatch", "the checkpoint is of a run with other data or another spec")
    if resume.memory.step > plan.total_steps:
        raise EngineError(
            "checkpoint_mismatch",
            f"the checkpoint is at step {resume.memory.step}, and {plan.n_epochs} epochs end at step "
            f"{plan.total_steps}: ask for more epochs",
            param="multimodal.hyperparameters.n_epochs",
        )
    model.load_state_dict(resume.weights, strict=False)
    restore_optimiser(model, optimiser, resume.optimiser)
    restore_rng(resume.rng)
    return resume.memory, dict(resume.best)

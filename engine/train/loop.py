"""The training loop, one plain function. Knows no file, job or encoder library: all it needs is an argument."""

import math
from collections.abc import Callable, Iterable

import torch

from domain.errors import EngineError
from engine.data.collate import Batch, Slice
from engine.models.multimodal import Multimodal
from engine.train.checkpoint import Memory, Snapshot, Tensors, restore_rng, rng_state
from engine.train.losses import Criterion, cross_entropy
from engine.train.optimiser import make_optimiser, optimiser_state, restore_optimiser, set_lr
from engine.train.plan import Plan
from engine.train.precision import autocast, scaler
from engine.train.watch import Watch
from engine.train.words import Finished, Progress, ShouldStop, StopAsked, Stopped

#: (epoch, first step) -> the epoch's micro-batches from that step on.
Batches = Callable[[int, int], Iterable[tuple[Slice, Batch]]]
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
) -> tuple[Finished | Stopped, Memory]:
    """Trains `model` in place; at the end it holds the best weights seen (without `evaluate`, the last)."""
    optimiser = make_optimiser(model, plan)
    memory, best = _restored(resume, model, optimiser, plan) if resume else (Memory(), {})
    device = next(model.parameters()).device
    scaling = scaler(plan.precision, device)
    if memory.scaling:
        scaling.load_state_dict(memory.scaling)
    watch = Watch(memory, plan)
    rng = rng_state()

    def snapshot() -> Snapshot:
        return Snapshot(memory, _weights(model), best, optimiser_state(model, optimiser), rng, _shape(plan))

    while memory.step < plan.total_steps and not _gives_up(memory, plan):
        model.train()
        epoch, first = divmod(memory.step, plan.steps_per_epoch)
        step_loss = 0.0
        for piece, batch in watch.waiting(batches(epoch, first)):
            why = should_stop()
            if why is not None:
                save(snapshot())
                return Stopped(memory.step, why), memory
            batch = batch.to(device)
            with autocast(plan.precision, device):
                outputs, besides = model.learn(batch.inputs, batch.present)
            loss = criterion(outputs, batch.targets)
            if besides is not None:
                loss = loss + besides
            loss = loss * piece.share
            scaling.scale(loss).backward()
            step_loss += loss.item()
            if not piece.ends_step:
                continue
            lr = set_lr(optimiser, plan.lr_factor(memory.step))
            grad_norm = _take_step(model, optimiser, scaling, plan.max_grad_norm)
            rng = rng_state()
            memory.scaling = scaling.state_dict()
            watch.count(step_loss)
            step_loss = 0.0
            if watch.is_due(plan.logging_steps):
                report(watch.log(lr=lr, grad_norm=grad_norm))
            evaluates = evaluate is not None and watch.is_due(plan.eval_steps)
            if evaluate is not None and evaluates:
                try:
                    metrics = evaluate(model)
                except StopAsked as asked:
                    # This step's evaluation is still to come, so the last checkpoint must stay the last.
                    return Stopped(memory.step, asked.why), memory
                model.train()
                best = _weights(model) if _is_best(memory, plan, metrics) else best
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
    return Finished(memory.step, dict(memory.best_metrics)), memory


def _take_step(
    model: Multimodal, optimiser: torch.optim.Optimizer, scaling: torch.amp.GradScaler, max_norm: float
) -> float | None:
    """One clipped step; the gradients' norm before clipping. None: fp16's scale was too large, and no step taken."""
    scaling.unscale_(optimiser)
    norm = torch.nn.utils.clip_grad_norm_([p for _, p in model.trained()], max_norm).item()
    scaling.step(optimiser)
    scaling.update()
    optimiser.zero_grad(set_to_none=True)
    return None if scaling.is_enabled() and not math.isfinite(norm) else norm


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

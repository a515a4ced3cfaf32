"""Counts, times and logs a run. The loop asks it what is due; it changes nothing but the run's memory."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from domain.errors import EngineError
from domain.tasks import VALID_LOSS
from engine.train.checkpoint import Memory
from engine.train.plan import Plan
from engine.train.words import Progress

#: Between two saves by the clock; an evaluation is saved sooner, as it may have found a new best.
SAVE_EVERY_S, SAVE_APART_S = 5.0, 1.0

T = TypeVar("T")


class Watch:
    def __init__(self, memory: Memory, plan: Plan) -> None:
        self._memory, self._plan = memory, plan
        # The first evaluation of a run is saved, however soon it comes.
        self._saved = time.monotonic() - (0.0 if memory.step else SAVE_APART_S)
        self._logged_step, self._logged_seconds = memory.step, sum(memory.epoch_seconds)
        self.resume()

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """`items`, with the time spent waiting for them noted."""
        iterator = iter(items)
        while True:
            began = time.monotonic()
            item = next(iterator, None)
            self._waited(time.monotonic() - began)
            if item is None:
                return
            yield item

    def _waited(self, seconds: float) -> None:
        memory = self._memory
        memory.waited_seconds += seconds
        epoch = memory.step // self._plan.steps_per_epoch
        memory.epoch_waits += [0.0] * (epoch + 1 - len(memory.epoch_waits))
        memory.epoch_waits[epoch] += seconds

    def resume(self) -> None:
        """Training goes on: what came between (an evaluation, a save) is not its time."""
        self._mark = time.monotonic()

    def count(self, loss: float) -> None:
        """A step was taken."""
        memory, instant = self._memory, time.monotonic()
        epoch = memory.step // self._plan.steps_per_epoch
        if len(memory.epoch_seconds) <= epoch:
            memory.epoch_seconds.append(0.0)
        memory.epoch_seconds[epoch] += instant - self._mark
        self._mark = instant
        memory.step += 1
        memory.loss_sum += loss
        memory.loss_steps += 1

    def is_due(self, every: int) -> bool:
        return self._memory.step % every == 0 or self._memory.step == self._plan.total_steps

    def is_save_due(self, evaluated: bool) -> bool:
        if self._plan.save_steps is not None:
            return self.is_due(self._plan.save_steps)
        return time.monotonic() - self._saved >= (SAVE_APART_S if evaluated else SAVE_EVERY_S)

    def saved(self) -> None:
        self._saved = time.monotonic()

    def log(self, *, lr: float, grad_norm: float | None) -> Progress:
        """The log's next line; a loss that is no number ends the run."""
        memory = self._memory
        metrics = {"train_loss": memory.loss_sum / memory.loss_steps, "lr": lr}
        metrics |= {} if grad_norm is None else {"grad_norm": grad_norm}
        if not all(math.isfinite(value) for value in metrics.values()):
            message = f"the loss or its gradient is not finite at step {memory.step}; lower the learning rate"
            raise EngineError("loss_not_finite", message, param="multimodal.hyperparameters.learning_rate")
        # The last step is told of whatever its number; a run that goes on from it with more epochs still
        # owes the line that these steps belong to.
        if memory.step % self._plan.logging_steps == 0:
            memory.loss_sum, memory.loss_steps = 0.0, 0
        self._remember(metrics)
        return self._progress(metrics)

    def evaluated(self, metrics: dict[str, float]) -> Progress:
        self._remember(metrics)
        # All of them are in the history; a line of text has room for what decides.
        telling = [name for name in (self._plan.best_metric, VALID_LOSS) if name in metrics]
        words = ", ".join(f"{name} {metrics[name]:.4f}" for name in dict.fromkeys(telling))
        return self._progress(metrics, f"Step {self._memory.step}/{self._plan.total_steps}: {words}")

    def told(self, message: str) -> Progress:
        """A word to the user, and where the run is."""
        return self._progress(None, message)

    def _remember(self, metrics: dict[str, float]) -> None:
        history, step = self._memory.history, self._memory.step
        if not history or history[-1]["step"] != step:
            history.append({"step": step, "epoch": step / self._plan.steps_per_epoch})
        history[-1].update(metrics)

    def _progress(self, metrics: dict[str, float] | None, message: str | None = None) -> Progress:
        memory, plan = self._memory, self._plan
        seconds = sum(memory.epoch_seconds) - self._logged_seconds
        steps = memory.step - self._logged_step
        pace = steps / seconds if seconds > 0 else 0.0
        return Progress(
            stage="training",
            epoch=-(-memory.step // plan.steps_per_epoch),
            n_epochs=plan.n_epochs,
            step=memory.step,
            total_steps=plan.total_steps,
            samples_per_second=pace * plan.rows / plan.steps_per_epoch if pace else None,
            eta_s=(plan.total_steps - memory.step) / pace if pace else None,
            metrics=metrics,
            message=message,
        )

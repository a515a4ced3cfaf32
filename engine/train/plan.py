"""Every number of a run, decided before it starts: what the spec says, and what `auto` means."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from domain.specs import Hyperparameters, Multimodal
from domain.tasks import METRICS, VALID_LOSS, Task

#: For fusion and head alone, and for a pretrained tower that is trained too.
HEAD_LR = 1e-3
TOWER_LR = 2e-5
#: Steps that a small data set still gets, and the epochs within which it must.
AUTO_STEPS = 600
AUTO_EPOCHS_CACHED = (10, 40)
AUTO_EPOCHS_LIVE = (3, 10)
AUTO_BATCH_CACHED = 32
AUTO_BATCH_LIVE = 16
#: Points of a curve that a person can tell apart.
AUTO_LOGS = 200

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Plan:
    rows: int
    n_epochs: int
    batch_size: int
    accumulation: int
    steps_per_epoch: int
    head_lr: float
    #: By tower; only trained ones are listed.
    tower_lr: dict[str, float]
    weight_decay: float
    warmup_steps: int
    max_grad_norm: float
    patience: int | None
    #: The metric that picks the best checkpoint; for `valid_loss` less is better.
    best_by: str
    eval_steps: int
    #: None: by the clock.
    save_steps: int | None
    logging_steps: int

    @property
    def total_steps(self) -> int:
        return self.n_epochs * self.steps_per_epoch

    def lr_factor(self, step: int) -> float:
        """Warm-up, then half a cosine: of the step alone, so that a resumed run needs no scheduler's state."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))

    def rank(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        """More is better. Small validation sets give many equal accuracies: among them the loss decides."""
        sign = -1 if self.best_by == "valid_loss" else 1
        return sign * metrics[self.best_by], -metrics.get("valid_loss", 0.0)


def make_plan(spec: Multimodal, rows: int) -> Plan:
    """The plan for `rows` training rows."""
    hyper = spec.hyperparameters
    cached = all(tower.is_frozen for tower in spec.towers.values())
    size = _or(hyper.batch_size, AUTO_BATCH_CACHED if cached else AUTO_BATCH_LIVE)
    per_epoch = math.ceil(rows / (size * hyper.gradient_accumulation_steps))
    least, most = AUTO_EPOCHS_CACHED if cached else AUTO_EPOCHS_LIVE
    epochs = _or(hyper.n_epochs, min(most, max(least, math.ceil(AUTO_STEPS / per_epoch))))
    total = epochs * per_epoch
    rate = _or(hyper.learning_rate_multiplier, 1.0)
    best_by = hyper.metric_for_best_model
    if best_by == "auto":
        best_by = METRICS[Task(spec.task)][0] if spec.task != "auto" else VALID_LOSS
    return Plan(
        rows=rows,
        n_epochs=epochs,
        batch_size=size,
        accumulation=hyper.gradient_accumulation_steps,
        steps_per_epoch=per_epoch,
        head_lr=_or(hyper.learning_rate, HEAD_LR) * rate,
        tower_lr={name: lr * rate for name, lr in _tower_lrs(spec, hyper).items()},
        weight_decay=hyper.weight_decay,
        warmup_steps=math.ceil(total * hyper.warmup_ratio),
        max_grad_norm=hyper.max_grad_norm,
        patience=hyper.early_stopping_patience,
        best_by=best_by if best_by.startswith("valid_") else f"valid_{best_by}",
        eval_steps=_or(hyper.eval_steps, per_epoch),
        save_steps=hyper.save_steps if isinstance(hyper.save_steps, int) else None,
        logging_steps=_or(hyper.logging_steps, max(1, total // AUTO_LOGS)),
    )


def _tower_lrs(spec: Multimodal, hyper: Hyperparameters) -> dict[str, float]:
    usual = _or(hyper.learning_rate, TOWER_LR)
    return {name: tower.lr or usual for name, tower in sorted(spec.towers.items()) if not tower.is_frozen}


def resolved(hyper: Hyperparameters, plan: Plan) -> dict[str, object]:
    """The hyperparameters with every `auto` replaced by what was chosen."""
    return hyper.model_dump(mode="json") | {
        "n_epochs": plan.n_epochs,
        "batch_size": plan.batch_size,
        "learning_rate": plan.head_lr / _or(hyper.learning_rate_multiplier, 1.0),
        "learning_rate_multiplier": _or(hyper.learning_rate_multiplier, 1.0),
        "eval_steps": plan.eval_steps,
        "logging_steps": plan.logging_steps,
    }


def _or(value: N | Literal["auto"], auto: N) -> N:
    return auto if value == "auto" else value

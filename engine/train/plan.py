"""Every number of a run, decided before it starts: what the spec says, and what `auto` means."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from domain.hyperparameters import Hyperparameters
from domain.specs import Multimodal
from domain.tasks import LESS_IS_BETTER, METRICS, VALID_LOSS, Task
from domain.towers import Tower
from engine.train.precision import Precision

#: For fusion and head alone, and for a pretrained tower that is trained too. SGD's steps are not scaled to
#: the gradients' size, and need larger rates.
HEAD_LR = {"adamw": 1e-3, "sgd": 2e-2}
TOWER_LR = {"adamw": 2e-5, "sgd": 1e-3}
#: For a language model's adapters: LLaVA's rate for them (Liu et al. 2023, arXiv:2310.03744). Its own weights take TOWER_LR.
ADAPTER_LR = {"adamw": 2e-4, "sgd": 1e-2}
#: Adapters begin at nothing, and their few parameters go much further than the weights that they stand for.
LORA_LR = {"adamw": 1e-3, "sgd": 2e-2}
#: Steps that a small data set still gets, and the epochs within which it must. With fewer, rows that lack a modality are
#: answered worse (docs/quality.md).
AUTO_STEPS = 1200
AUTO_EPOCHS_CACHED = (10, 80)
AUTO_EPOCHS_LIVE = (3, 10)
AUTO_BATCH_CACHED = 32
AUTO_BATCH_LIVE = 16
#: Each row of a batch is a negative of the others: of more of them a contrastive training learns more.
AUTO_BATCH_PAIRS = {True: 128, False: 32}
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
    #: By tower, where it is asked for: the rate of a layer over that of the layer above it.
    layer_decay: dict[str, float]
    optimizer: Literal["adamw", "sgd"]
    momentum: float
    weight_decay: float
    schedule: Literal["cosine", "linear", "constant"]
    warmup_steps: int
    max_grad_norm: float
    #: Of the weights' moving average; None: there is none.
    ema: float | None
    patience: int | None
    precision: Precision
    #: The metric that picks the best checkpoint, as a spec names it.
    best_by: str
    eval_steps: int
    #: None: by the clock.
    save_steps: int | None
    logging_steps: int
    #: Of a language model, if it is trained.
    language_lr: float | None = None

    @property
    def total_steps(self) -> int:
        return self.n_epochs * self.steps_per_epoch

    def lr_factor(self, step: int) -> float:
        """Warm-up, then the schedule: of the step alone, so that a resumed run needs no scheduler's state."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        match self.schedule:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * done))
            case "linear":
                return 1 - done
            case "constant":
                return 1.0

    @property
    def best_metric(self) -> str:
        """As an evaluation names it."""
        return self.best_by if self.best_by == VALID_LOSS else f"valid_{self.best_by}"

    def rank(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        """More is better. Small validation sets give many equal accuracies: among them the loss decides.

        So it does while the metric is not defined, which is worse than any value of it.
        """
        sign = -1 if self.best_by in LESS_IS_BETTER else 1
        best = sign * metrics[self.best_metric] if self.best_metric in metrics else -math.inf
        return best, -metrics.get(VALID_LOSS, 0.0)


def make_plan(spec: Multimodal, rows: int, precision: Precision = "fp32", live: Collection[str] = ()) -> Plan:
    """The plan for `rows` training rows; `spec` has its task decided. `live` are frozen towers that encode in each epoch."""
    hyper = spec.hyperparameters
    # A language model runs in every step, whatever of the towers is cached.
    cached = spec.language_model is None and all(
        (tower.is_frozen and name not in live) or tower.encoder is None for name, tower in spec.towers.items()
    )
    auto_batch = AUTO_BATCH_CACHED if cached else AUTO_BATCH_LIVE
    if spec.task == Task.CONTRASTIVE:
        auto_batch = AUTO_BATCH_PAIRS[cached]
    size = _or(hyper.batch_size, auto_batch)
    per_epoch = math.ceil(rows / (size * hyper.gradient_accumulation_steps))
    least, most = AUTO_EPOCHS_CACHED if cached else AUTO_EPOCHS_LIVE
    epochs = _or(hyper.n_epochs, min(most, max(least, math.ceil(AUTO_STEPS / per_epoch))))
    total = epochs * per_epoch
    rate = _or(hyper.learning_rate_multiplier, 1.0)
    best_by = hyper.metric_for_best_model
    return Plan(
        rows=rows,
        n_epochs=epochs,
        batch_size=size,
        accumulation=hyper.gradient_accumulation_steps,
        steps_per_epoch=per_epoch,
        head_lr=_or(hyper.learning_rate, HEAD_LR[hyper.optimizer]) * rate,
        tower_lr={name: lr * rate for name, lr in _tower_lrs(spec).items()},
        layer_decay={name: t.layer_decay for name, t in sorted(spec.towers.items()) if t.layer_decay},
        optimizer=hyper.optimizer,
        momentum=hyper.momentum,
        weight_decay=hyper.weight_decay,
        schedule=hyper.lr_scheduler_type,
        warmup_steps=_warmup_steps(hyper, total),
        max_grad_norm=hyper.max_grad_norm,
        precision=precision,
        ema=hyper.ema,
        patience=hyper.early_stopping_patience,
        best_by=METRICS[Task(spec.task)][0] if best_by == "auto" else best_by,
        eval_steps=_or(hyper.eval_steps, per_epoch),
        save_steps=hyper.save_steps if isinstance(hyper.save_steps, int) else None,
        logging_steps=_or(hyper.logging_steps, max(1, total // AUTO_LOGS)),
        language_lr=_times(_language_lr(spec), rate),
    )


def _warmup_steps(hyper: Hyperparameters, total: int) -> int:
    return hyper.warmup_steps if hyper.warmup_steps is not None else math.ceil(total * hyper.warmup_ratio)


def _tower_lrs(spec: Multimodal) -> dict[str, float]:
    """Of the towers that are trained."""
    return {
        name: tower.lr or _or(spec.hyperparameters.learning_rate, _usual_lr(tower, spec.hyperparameters))
        for name, tower in sorted(spec.towers.items())
        if not tower.is_frozen
    }


def _language_lr(spec: Multimodal) -> float | None:
    said, hyper = spec.language_model, spec.hyperparameters
    if said is None or not said.settled().is_trained:
        return None
    usual = ADAPTER_LR if said.settled().lora is not None else TOWER_LR
    return said.lr or _or(hyper.learning_rate, usual[hyper.optimizer])


def _times(lr: float | None, rate: float) -> float | None:
    return None if lr is None else lr * rate


def _usual_lr(tower: Tower, hyper: Hyperparameters) -> float:
    if tower.lora is not None:
        return LORA_LR[hyper.optimizer]
    # A number's or category's tower begins from nothing, as fusion and head do.
    return (TOWER_LR if tower.encoder else HEAD_LR)[hyper.optimizer]


def resolved(spec: Multimodal, plan: Plan) -> Multimodal:
    """`spec` with every `auto` replaced by what was chosen: a run of it is the same run."""
    chosen = {
        "n_epochs": plan.n_epochs,
        "batch_size": plan.batch_size,
        "learning_rate": _or(spec.hyperparameters.learning_rate, HEAD_LR[plan.optimizer]),
        "learning_rate_multiplier": _or(spec.hyperparameters.learning_rate_multiplier, 1.0),
        "precision": plan.precision,
        "metric_for_best_model": plan.best_by,
        "eval_steps": plan.eval_steps,
        "save_steps": plan.save_steps or "clock",
        "logging_steps": plan.logging_steps,
    }
    lrs = _tower_lrs(spec)
    towers = {
        # The head's rate was decided too, and must not become a trained tower's.
        name: tower.model_copy(update={"lr": lrs[name]}) if name in lrs else tower
        for name, tower in spec.towers.items()
    }
    hyper = spec.hyperparameters.model_copy(update=chosen)
    settled = spec.language_model.settled() if spec.language_model else None
    language = settled.model_copy(update={"lr": _language_lr(spec)}) if settled else None
    return spec.model_copy(update={"towers": towers, "hyperparameters": hyper, "language_model": language})


def _or(value: N | Literal["auto"], auto: N) -> N:
    return auto if value == "auto" else value

"""How a model is trained, in numbers: a spec's `hyperparameters`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field

from domain.shapes import Shape
from domain.tasks import METRIC_NAMES

Auto = Literal["auto"]


def _known_metric(name: str) -> str:
    if name != "auto" and name not in METRIC_NAMES:
        raise ValueError(f"no such metric; there are: auto, {', '.join(sorted(METRIC_NAMES))}")
    return name


def _schedule(name: Any) -> Any:
    """Both constant schedules of Hugging Face's are one here: `warmup_ratio` says whether there is a warm-up."""
    return "constant" if name == "constant_with_warmup" else name


class Hyperparameters(Shape):
    """`auto` leaves the choice to Plait; `resolved` says what it chose."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=10_000)] = Field(
        default="auto",
        validation_alias=AliasChoices("n_epochs", "num_train_epochs"),
        description="auto: what makes 1200 steps, within 10 to 80 (3 to 10 if an encoder is trained)",
    )
    batch_size: Auto | Annotated[int, Field(ge=1, le=65_536)] = Field(
        default="auto",
        validation_alias=AliasChoices("batch_size", "per_device_train_batch_size"),
        description="rows; auto: 32 (16 if an encoder is trained, as many of them at once as fit on a GPU; contrastive: 128 and 32)",
    )
    learning_rate: Auto | Annotated[float, Field(gt=0, le=10)] = Field(
        default="auto",
        description="auto: 0.001 for fusion, head and the towers of numbers and categories, 0.00002 for trained encoders, "
        "0.001 for their lora (sgd: 0.02, 0.001 and 0.02)",
    )
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=1000)] = Field(
        default="auto", description="scales every learning rate; auto: 1"
    )
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=4096, description="batches to a step")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="how steps are made")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(default=0.01, ge=0, le=10, description="norms and biases are not decayed")
    lr_scheduler_type: Annotated[Literal["cosine", "linear", "constant"], BeforeValidator(_schedule)] = Field(
        default="cosine", description="of the learning rate, after the warm-up"
    )
    warmup_ratio: float = Field(default=0.1, ge=0, le=1, description="share of all steps")
    warmup_steps: int | None = Field(
        default=None, ge=0, le=10**9, description="in steps, whatever their number; wins over warmup_ratio"
    )
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e6, description="longer gradients are cut to it")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="of the arithmetic; auto: what the device does well"
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, which is evaluated and kept instead of them: 0.99 to 0.9999",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="trained encoders, and a language model, keep less for the backward pass and compute it again: less "
        "memory, more time",
    )
    early_stopping_patience: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="evaluations in a row without a better one that end training",
    )
    metric_for_best_model: Annotated[str, AfterValidator(_known_metric)] = Field(
        default="auto", description="picks the best checkpoint: a metric of the task; auto: its first"
    )
    eval_steps: Auto | Annotated[int, Field(ge=1)] = Field(default="auto", description="auto: once an epoch")
    save_steps: Auto | Literal["clock"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="clock, which auto means: every few seconds, and at an evaluation"
    )
    save_total_limit: int = Field(default=2, ge=1, le=100, description="checkpoints that are kept")
    logging_steps: Auto | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="auto: so that a curve has 200 points"
    )

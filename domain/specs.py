"""The fine-tune spec (`multimodal`): its words, its defaults, and what is refused.

Names are Hugging Face's; OpenAI's are accepted as aliases. A stored spec carries `version`.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from domain.errors import InvalidSpec
from domain.manifest import ColumnType, Schema

SPEC_VERSION = 1

DEFAULT_ENCODERS = {
    ColumnType.TEXT: "sentence-transformers/all-MiniLM-L6-v2",
    ColumnType.IMAGE: "google/mobilenet_v2_1.0_224",
    ColumnType.AUDIO: "openai/whisper-tiny.en",
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}(/[A-Za-z0-9][\w.\-]{0,95})?")


def _encoder_id(value: str) -> str:
    """A Hub id (`org/name`) or an absolute folder; whether the folder may be read is the worker's to say."""
    folder = value.startswith("/") and ".." not in value.split("/") and "\0" not in value
    if not folder and (not _HUB_ID.fullmatch(value) or ".." in value):
        raise ValueError("must be a Hub id such as 'openai/whisper-tiny.en' or an absolute folder")
    return value


class Shape(BaseModel):
    """Unknown fields are refused: a misspelt option must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Tower(Shape):
    """One column's pretrained encoder and how its input is read."""

    encoder: Annotated[str, AfterValidator(_encoder_id), Field(max_length=300)]
    freeze: bool = True
    lr: float | None = Field(default=None, gt=0, le=1, description="own learning rate if not frozen")
    image_size: int | None = Field(default=None, ge=16, le=2048, description="pixels a side")
    max_seconds: float | None = Field(default=None, gt=0, le=600, description="longer sound is cut")
    max_length: int | None = Field(default=None, ge=1, le=8192, description="tokens of text")


class Fusion(Shape):
    """How the towers' vectors become one."""

    type: Literal["concat", "mean"] = "concat"
    dim: int = Field(default=256, ge=1, le=16384)
    modality_dropout: float = Field(default=0.15, ge=0, lt=1)


class Loss(Shape):
    type: Literal["cross_entropy"] = "cross_entropy"


Auto = Literal["auto"]
OnBadRow = Literal["fail", "skip", "mask"]


class Hyperparameters(Shape):
    """`auto` leaves the choice to Plait; `resolved` says what it chose."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=10_000)] = Field(
        default="auto", validation_alias=AliasChoices("n_epochs", "num_train_epochs")
    )
    batch_size: Auto | Annotated[int, Field(ge=1, le=65_536)] = Field(
        default="auto",
        validation_alias=AliasChoices("batch_size", "per_device_train_batch_size"),
    )
    learning_rate: Auto | Annotated[float, Field(gt=0, le=10)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=1000)] = "auto"
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=4096)
    optimizer: Literal["adamw"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0, le=10)
    lr_scheduler_type: Literal["cosine"] = "cosine"
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e6)
    early_stopping_patience: int | None = Field(default=None, ge=1, le=10_000)
    metric_for_best_model: Literal["accuracy", "f1_macro", "valid_loss"] = "accuracy"
    eval_steps: Auto | Annotated[int, Field(ge=1)] = "auto"
    save_steps: Auto | Annotated[int, Field(ge=1)] = "auto"
    save_total_limit: int = Field(default=2, ge=1, le=100)
    logging_steps: Auto | Annotated[int, Field(ge=1)] = "auto"


class Multimodal(Shape):
    """The whole spec of a fine-tune. `towers` may be empty: one tower a column is then made."""

    version: Literal[1] = 1
    task: Literal["classification"] = "classification"
    family: Literal["late-fusion"] = "late-fusion"
    towers: dict[Annotated[str, Field(max_length=200)], Tower] = Field(default_factory=dict, max_length=16)
    schema_: Schema | None = Field(default=None, alias="schema")
    test_file: str | None = None
    fusion: Fusion = Fusion()
    loss: Loss = Loss()
    hyperparameters: Hyperparameters = Hyperparameters()
    on_bad_row: OnBadRow = Field(
        default="fail", description="skip: bad rows are left out; mask: bad cells count as missing"
    )
    max_bad_fraction: float = Field(
        default=0.01, ge=0, le=1, description="share of a file's rows that may be bad before the job fails"
    )


class SupervisedMethod(Shape):
    hyperparameters: Hyperparameters = Hyperparameters()


class Method(Shape):
    type: Literal["supervised"] = "supervised"
    supervised: SupervisedMethod = SupervisedMethod()


class FineTune(Shape):
    """What `POST /v1/fine_tuning/jobs` takes: OpenAI's fields and our `multimodal`."""

    model: str = Field(min_length=1, max_length=300)
    training_file: str = Field(min_length=1, max_length=100)
    validation_file: str | None = Field(default=None, max_length=100)
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    multimodal: Multimodal = Multimodal()
    suffix: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_\-]{1,64}$")
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = (
        Field(default=None, max_length=16)
    )
    integrations: None = None
    priority: int = Field(default=0, ge=-100, le=100)
    timeout_s: float | None = Field(default=None, gt=0, le=30 * 86_400)

    @model_validator(mode="after")
    def _model_is_the_family(self) -> "FineTune":
        if self.model != self.multimodal.family:
            raise ValueError(
                f"model: '{self.model}' is not a family of Plait; use '{self.multimodal.family}'"
            )
        return self

    def merged(self) -> Multimodal:
        """The spec with OpenAI's hyperparameters laid under ours: what `multimodal` says wins."""
        outer = self.hyperparameters or (self.method.supervised.hyperparameters if self.method else None)
        if outer is None:
            return self.multimodal
        inner = self.multimodal.hyperparameters.model_dump(exclude_unset=True)
        both = Hyperparameters.model_validate(outer.model_dump(exclude_unset=True) | inner)
        return self.multimodal.model_copy(update={"hyperparameters": both})


S = TypeVar("S", bound=BaseModel)


def parse(shape: type[S], body: Any) -> S:
    """`body` as `shape`; raises InvalidSpec with every wrong path and what is allowed there."""
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        problems = {}
        for e in error.errors(include_url=False):
            problem = _problem(shape, e)
            # Of a field's tried alternatives the last is the one that the user most likely meant.
            problems[problem["path"]] = problem
        raise InvalidSpec(list(problems.values())) from None


def _problem(shape: type[BaseModel], error: Any) -> dict[str, Any]:
    parts = [str(p) for p in error["loc"] if not _is_union_branch(p)]
    path, message = (
        ".".join(parts) or "body",
        error["msg"].removeprefix("Value error, "),
    )
    if path == "body" and message.startswith("model: "):
        path, message = "model", message.removeprefix("model: ")
    problem = {"path": path, "code": error["type"], "message": message}
    if error["type"] == "extra_forbidden":
        allowed = allowed_fields(shape, parts[:-1])
        problem |= {"code": "unknown_field", "allowed": allowed}
        problem["message"] = f"unknown field; allowed here: {', '.join(allowed)}"
    return problem


def _is_union_branch(part: str | int) -> bool:
    """pydantic names the tried branch of a union in the path (`literal['auto']`); users need not see it."""
    return isinstance(part, str) and (
        part.startswith(("literal[", "constrained-")) or part in ("int", "float")
    )


def allowed_fields(shape: type[BaseModel], path: list[str]) -> list[str]:
    """The names that the object at `path` takes."""
    for part in path:
        fields = {f.alias or name: f.annotation for name, f in shape.model_fields.items()}
        shape = _model_in(fields[part]) if part in fields else shape
    return sorted(f.alias or name for name, f in shape.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel]:
    """The model inside `X | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        try:
            return _model_in(inner)
        except TypeError:
            continue
    raise TypeError(f"no model in {annotation}")

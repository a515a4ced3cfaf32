"""The fine-tune spec (`multimodal`): its words, its defaults, and what is refused.

Names are Hugging Face's; OpenAI's are accepted as aliases. A stored spec carries `version`.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from domain.families import FAMILIES, PRESETS, Family, Preset, implied, misfits, task_misfits, with_family
from domain.fusions import Fusion
from domain.hyperparameters import Hyperparameters
from domain.language import LanguageModel
from domain.language import misfits as misfits_of_language
from domain.manifest import ColumnType, Schema
from domain.reports import Report
from domain.shapes import Shape, parse, wrong
from domain.tasks import LOSSES, METRICS, Task, fits
from domain.towers import MOST_TOWERS, Tower

SPEC_VERSION = 1

OnBadRow = Literal["fail", "skip", "mask"]

#: What the name of every fine-tuned model begins with.
_FINE_TUNED = "ft:"

_ColumnName = Annotated[str, Field(max_length=200)]
_ClassName = Annotated[str, Field(max_length=1000)]
_Weight = Annotated[float, Field(gt=0, le=1e6)]


class Loss(Shape):
    """What training makes small; `auto` is the task's own."""

    type: Literal["auto", "cross_entropy", "bce", "mse", "focal", "clip", "siglip"] = "auto"
    gamma: float | None = Field(
        default=None, ge=0, le=10, description="focal only: how little what is sure counts; 2 if not said"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="cross_entropy only")
    class_weights: Literal["none", "balanced"] | dict[_ClassName, _Weight] = Field(
        default="none", description="balanced: rare classes count more; or weights by class, 1 if not named"
    )

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> "Loss":
        if self.gamma is not None and self.type != "focal":
            raise wrong("gamma", f"the loss is {self.type}; gamma goes with focal")
        if self.label_smoothing and self.type == "focal":
            raise wrong("label_smoothing", "a focal loss takes labels as they are; leave one of the two out")
        return self


class HoldOut(Shape):
    """What of the training rows is held out where neither rows nor files are named for it."""

    validation: float = Field(default=0.1, gt=0, le=0.5, description="share; measured while training goes on")
    test: float = Field(default=0.0, ge=0, le=0.5, description="share; measured once, at the end")


class Multimodal(Shape):
    """The whole spec of a fine-tune. `towers` may be empty: one tower a column is then made."""

    version: Literal[1] = Field(default=1, description="of this spec's format")
    task: Literal["auto", "classification", "multilabel", "regression", "contrastive", "generation"] = Field(
        default="auto", description="auto: told by what the labels are; contrastive needs none"
    )
    family: Family = Field(
        default="late-fusion",
        description="the kind of network; clip, which contrastive means, needs no label; vlm, which generation means, is a "
        "language model that reads media and writes; mm-gan imputes what a row lacks before it is fused",
    )
    preset: Preset | None = Field(
        default=None,
        description="a choice of encoders by the columns' types; towers say what is to be otherwise",
    )
    towers: dict[_ColumnName, Tower] = Field(
        default_factory=dict,
        max_length=MOST_TOWERS,
        description="by column; none: one for each column that can be learned from",
    )
    schema_: Schema | None = Field(default=None, alias="schema", description="what is left out is inferred")
    test_file: str | None = Field(
        default=None, description="id of an uploaded file; evaluated once, at the end"
    )
    hold_out: HoldOut = HoldOut()
    language_model: LanguageModel | None = Field(
        default=None, description="of the family vlm, which has the default one if none is said"
    )
    fusion: Fusion = Fusion()
    loss: Loss = Loss()
    hyperparameters: Hyperparameters = Hyperparameters()
    start_columns: dict[_ColumnName, _ColumnName] = Field(
        default_factory=dict,
        max_length=MOST_TOWERS,
        description="for a job that starts from a model: which of its columns each of ours takes over; none: that of its "
        "name, or the only one of its type",
    )
    report: Report = Report()
    on_bad_row: OnBadRow = Field(
        default="fail", description="skip: bad rows are left out; mask: bad cells count as missing"
    )
    max_bad_fraction: float = Field(
        default=0.01, ge=0, le=1, description="share of a file's rows that may be bad before the job fails"
    )

    @model_validator(mode="before")
    @classmethod
    def _implied_by_the_family(cls, given: Any) -> Any:
        return implied(given)

    @model_validator(mode="after")
    def _options_fit_the_family(self) -> "Multimodal":
        for field, reason in misfits(self):
            raise wrong(field, reason)
        return self

    @model_validator(mode="after")
    def _options_fit_the_task(self) -> "Multimodal":
        if self.task != "auto":
            for field, reason in self.misfits(Task(self.task)):
                raise wrong(field, reason)
        return self

    @model_validator(mode="after")
    def _towers_fit_the_columns(self) -> "Multimodal":
        """As far as the schema tells the columns' types; what the data tell is the check's to compare."""
        columns = self.schema_.columns if self.schema_ else {}
        for field, reason in self.tower_misfits({name: column.type for name, column in columns.items()}):
            raise wrong(field, reason)
        return self

    def tower_misfits(self, types: Mapping[str, ColumnType]) -> Iterator[tuple[str, str]]:
        """The path and the reason of every field of a tower that makes no sense for its column's type."""
        for name, tower in sorted(self.towers.items()):
            if name in types:
                kind = types[name]
                found = misfits_of_language(tower, kind) if self.language_model else tower.misfits(kind)
                for field, reason in found:
                    yield f"towers.{name}.{field}", reason

    def misfits(self, task: Task) -> Iterator[tuple[str, str]]:
        """The path and the reason of every option that makes no sense for `task`."""
        kind, loss = f"the task is {task}", self.loss
        yield from task_misfits(self.family, task)
        if self.family == "clip" and self.fusion.type not in ("concat", "mean"):
            yield "fusion.type", "the family is clip, which takes the mean of the columns; leave it out"
        if loss.type not in ("auto", *LOSSES[task]):
            yield (
                "loss.type",
                f"{kind}, which {loss.type} does not fit; allowed: {', '.join(('auto', *LOSSES[task]))}",
            )
        if loss.label_smoothing and task is not Task.CLASSIFICATION:
            yield "loss.label_smoothing", f"{kind}; labels are smoothed for a classification only"
        if loss.class_weights != "none" and task in (Task.REGRESSION, Task.CONTRASTIVE, Task.GENERATION):
            yield "loss.class_weights", f"{kind}, which has no classes to weigh"
        metric = self.hyperparameters.metric_for_best_model
        if metric != "auto" and not fits(metric, task):
            allowed = ", ".join((*METRICS[task], "valid_loss"))
            yield "hyperparameters.metric_for_best_model", f"{kind}, whose metrics are: {allowed}"

    def settled(self, task: Task) -> "Multimodal":
        """The spec with `task` and its loss decided; raises InvalidSpec if an option does not fit."""
        loss = self.loss.type if self.loss.type != "auto" else LOSSES[task][0]
        stored = self.model_dump(by_alias=True)
        return parse(Multimodal, stored | {"task": str(task), "loss": {**stored["loss"], "type": loss}})


class SupervisedMethod(Shape):
    hyperparameters: Hyperparameters = Hyperparameters()


class Method(Shape):
    type: Literal["supervised"] = "supervised"
    supervised: SupervisedMethod = SupervisedMethod()


#: Every claim of the job has it anew; a pause stops the clock.
TimeLimit = Annotated[
    float | None,
    Field(gt=0, le=30 * 86_400, description="seconds of one attempt; a job that takes longer fails"),
]


class FineTune(Shape):
    """What `POST /v1/fine_tuning/jobs` takes: OpenAI's fields and our `multimodal`."""

    model: str = Field(
        min_length=1,
        max_length=300,
        description=f"the family ({', '.join(FAMILIES)}), a preset ({', '.join(PRESETS)}), or one of your models (ft:...), "
        "whose weights training starts from",
    )
    training_file: str = Field(
        min_length=1,
        max_length=100,
        description="id of an uploaded file; the command line sends a path first",
    )
    validation_file: str | None = Field(
        default=None, max_length=100, description="none: multimodal.hold_out says how many training rows are"
    )
    hyperparameters: Hyperparameters | None = Field(
        default=None, description="OpenAI's place for them; what multimodal says wins"
    )
    method: Method | None = Field(default=None, description="OpenAI's other place for them")
    multimodal: Multimodal = Multimodal()
    suffix: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_\-]{1,64}$", description="in the model's id"
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="equal seeds give equal runs; 0 if not said"
    )
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = (
        Field(default=None, max_length=16, description="your own words, to find the job by")
    )
    integrations: None = Field(default=None, description="none yet")
    resume_from_checkpoint: str | None = Field(
        default=None,
        min_length=1,
        max_length=300,
        description="go on where another job was: a checkpoint's id or name, or a job's id for its last one; model is the "
        "other job's, too",
    )
    priority: int = Field(default=0, ge=-100, le=100, description="higher ones are taken first")
    timeout_s: TimeLimit = None

    @model_validator(mode="before")
    @classmethod
    def _family_of_the_model(cls, job: Any) -> Any:
        return with_family(job)

    @model_validator(mode="after")
    def _model_is_the_family_or_a_model(self) -> "FineTune":
        if self.start is None and self.model not in FAMILIES + PRESETS:
            allowed = ", ".join(FAMILIES + PRESETS)
            raise wrong(
                "model",
                f"'{self.model}' is no family or preset of Plait; there are: {allowed}, or a model of yours (ft:...)",
            )
        field = "preset" if self.model in PRESETS else "family"
        said = getattr(self.multimodal, field)
        if self.start is None and self.model != said:
            raise wrong("model", f"it is '{self.model}', and multimodal.{field} '{said}'; say one of them")
        if self.multimodal.start_columns and self.start is None:
            raise wrong(
                "multimodal.start_columns", "goes with a job that starts from a model (model: ft:...)"
            )
        return self

    @property
    def start(self) -> str | None:
        """The model whose weights the job starts from; None for one that starts from the encoders alone."""
        return start_of({"model": self.model})

    def merged(self) -> Multimodal:
        """The spec with OpenAI's hyperparameters laid under ours: what `multimodal` says wins."""
        outer = self.hyperparameters or (self.method.supervised.hyperparameters if self.method else None)
        if outer is None:
            return self.multimodal
        inner = self.multimodal.hyperparameters.model_dump(exclude_unset=True)
        both = Hyperparameters.model_validate(outer.model_dump(exclude_unset=True) | inner)
        return self.multimodal.model_copy(update={"hyperparameters": both})


def family_of(spec: Mapping[str, Any]) -> str:
    """The family of a stored job's model; its `model` may be the one that it starts from."""
    return str(spec.get("multimodal", {}).get("family") or spec["model"])


def start_of(spec: Mapping[str, Any]) -> str | None:
    """The model whose weights a stored job starts from, if it starts from one."""
    model = str(spec["model"])
    return model if model.startswith(_FINE_TUNED) else None

"""A spec's `towers`: each column's encoder, how its input is read, and what makes no sense for its type."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from domain.augment import Augment, preset
from domain.manifest import MOST_FRAMES, TABULAR, ColumnType
from domain.shapes import Shape, wrong

DEFAULT_ENCODERS = {
    ColumnType.TEXT: "sentence-transformers/all-MiniLM-L6-v2",
    ColumnType.IMAGE: "google/mobilenet_v2_1.0_224",
    ColumnType.AUDIO: "openai/whisper-tiny.en",
    ColumnType.VIDEO: "google/mobilenet_v2_1.0_224",
}

#: As many columns as a row of a prediction may have.
MOST_TOWERS = 64

#: What makes sense for a tower that no pretrained encoder is in.
_TABULAR_FIELDS = frozenset({"lr"})

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}(/[A-Za-z0-9][\w.\-]{0,95})?")


def _encoder_id(value: str) -> str:
    """A Hub id (`org/name`) or an absolute folder; whether the folder may be read is the worker's to say."""
    folder = value.startswith("/") and ".." not in value.split("/") and "\0" not in value
    if not folder and (not _HUB_ID.fullmatch(value) or ".." in value):
        raise ValueError("must be a Hub id such as 'openai/whisper-tiny.en' or an absolute folder")
    return value


HubId = Annotated[str, AfterValidator(_encoder_id), Field(max_length=300)]


class Lora(Shape):
    """Low-rank adapters in a pretrained network whose own weights stay as they are."""

    r: int = Field(default=8, ge=1, le=512, description="rank of what is added to a weight")
    alpha: int = Field(default=16, gt=0, le=4096, description="what is added counts alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of the adapters' inputs, in training")
    target_modules: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        default_factory=list,
        max_length=50,
        description="last words of layers' names; none: all linear layers, or all convolutions of a network without any",
    )


class Tower(Shape):
    """One column's encoder and how its input is read; those of numbers and categories have none, and take `lr` alone."""

    encoder: Annotated[str, AfterValidator(_encoder_id), Field(max_length=300)] | None = Field(
        default=None,
        description="a Hub id, looked for in the mirror first, or an allowed absolute folder; none: the default of "
        "its column's type",
    )
    freeze: bool | Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="true, or the share of its layers that is frozen, counted from the input; none: true",
    )
    freeze_layers: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="instead of freeze: so many layers are frozen, counted from the input, and what comes before them",
    )
    lora: Lora | None = Field(
        default=None, description="trains adapters beside the encoder's weights, which stay as they are"
    )
    lr: float | None = Field(default=None, gt=0, le=1, description="its own learning rate, if it is trained")
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="of a trained encoder: each layer learns at so much of the rate of the layer above it",
    )
    augment: Annotated[Augment | None, BeforeValidator(preset)] = Field(
        default=None,
        description="random changes of a trained tower's inputs, in training only; light: the usual ones of its type",
    )
    image_size: int | None = Field(
        default=None, ge=16, le=2048, description="pixels a side; the encoder's own if not said"
    )
    max_seconds: float | None = Field(
        default=None,
        gt=0,
        le=600,
        description="longer sound or film is cut; the encoder's own if not said, of a film none",
    )
    max_length: int | None = Field(default=None, ge=1, le=8192, description="longer text is cut, in tokens")

    num_frames: int | None = Field(
        default=None, ge=1, le=MOST_FRAMES, description="frames taken of a film, at most; 8 if not said"
    )
    sampling: Literal["uniform", "head"] = Field(
        default="uniform", description="which frames: spread over the film, or its first"
    )
    pool: Literal["mean", "max", "attention", "transformer"] = Field(
        default="mean",
        description="how the frames' vectors become one; attention and transformer are trained, also with a frozen "
        "encoder, and only transformer sees the frames' order",
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="of mm-bert, vilbert and mult only: vectors of a cell; neighbours of more are averaged; 64 if not said",
    )

    @model_validator(mode="after")
    def _says_once_what_is_trained(self) -> "Tower":
        if self.freeze_layers is not None and self.freeze not in (None, False):
            raise wrong("freeze_layers", "freeze says already what is frozen; leave one of the two out")
        if self.lora is not None and (self.freeze_layers is not None or self.freeze not in (None, True)):
            field = "freeze" if self.freeze_layers is None else "freeze_layers"
            raise wrong(field, "lora leaves all of the encoder's own weights as they are; leave this out")
        for field in ("layer_decay", "augment"):
            if getattr(self, field) is not None and self.is_frozen:
                raise wrong(field, _UNTRAINED[field])
        return self

    @property
    def is_frozen(self) -> bool:
        """Nothing of it is trained."""
        return self.lora is None and self.frozen_share >= 1

    @property
    def frozen_share(self) -> float:
        """Of its layers, 0 to 1, where `freeze_layers` does not count them."""
        return (0.0 if self.freeze_layers else 1.0) if self.freeze is None else float(self.freeze)

    def misfits(self, kind: ColumnType) -> Iterator[tuple[str, str]]:
        """The name and the reason of every field that makes no sense for a column of type `kind`."""
        for name in self.augment.misfits(kind) if self.augment else ():
            yield f"augment.{name}", f"does not apply to a column of type {kind}"
        if kind not in TABULAR:
            return
        for name, field in type(self).model_fields.items():
            said = getattr(self, name)
            # A settled tower says that it is not frozen, which is true.
            if name in _TABULAR_FIELDS or said == field.default or (name == "freeze" and said == 0):
                continue
            yield (
                name,
                _TABULAR_REASONS.get(name, "does not apply to a column of type {kind}").format(kind=kind),
            )

    def settled(self, kind: ColumnType) -> "Tower":
        """With its encoder and what is frozen decided, for a column of type `kind` that it fits."""
        if kind in TABULAR:
            return self.model_copy(update={"freeze": False})
        decided: dict[str, Any] = {"encoder": self.encoder or DEFAULT_ENCODERS[kind]}
        if self.freeze is None:
            decided["freeze"] = self.freeze_layers is None
        return self.model_copy(update=decided)


_UNTRAINED = {
    "layer_decay": "is for the layers of a trained encoder; set freeze to false or a share, or give it lora",
    "augment": "needs a trained encoder (freeze: false or a share, or lora): what a frozen one makes of a row is kept "
    "and is the same in every epoch",
}

_TABULAR_REASONS = {
    "encoder": "a column of type {kind} has no pretrained encoder; leave it out",
    "freeze": "the tower of a column of type {kind} is always trained; leave it out",
    "lora": "the tower of a column of type {kind} is small and trained whole; leave it out",
}


def settled_towers(towers: Mapping[str, Tower], types: Mapping[str, ColumnType]) -> dict[str, Tower]:
    """`towers` with nothing left open; one whose column is not among `types` stays as it is."""
    return {name: tower.settled(types[name]) if name in types else tower for name, tower in towers.items()}

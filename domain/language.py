"""A spec's `language_model`: what writes the answers of the family vlm, and what of a row it reads."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field, model_validator

from domain.manifest import ColumnType
from domain.shapes import Shape, wrong
from domain.towers import HubId, Lora, Tower

DEFAULT_LANGUAGE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

#: What the language model sees through an encoder; all else it reads as text.
SEEN = frozenset({ColumnType.IMAGE, ColumnType.AUDIO, ColumnType.VIDEO})


class LanguageModel(Shape):
    """A causal language model that reads texts and media and writes the answer."""

    model: HubId = Field(
        default=DEFAULT_LANGUAGE_MODEL,
        description="a Hub id of a causal language model, looked for in the mirror first, or an allowed absolute folder",
    )
    freeze: bool | Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="of its own weights: true, or the share of its layers that is frozen, counted from the input; none: "
        "true, with low-rank adapters",
    )
    lora: Lora | None = Field(
        default=None,
        description="low-rank adapters; none: the default ones, unless freeze says what is trained",
    )
    lr: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="its own learning rate; none: 0.0002 for adapters, 0.00002 for its own weights",
    )
    max_length: int = Field(
        default=256, ge=1, le=8192, description="longer texts of a row are cut, in tokens each"
    )
    max_answer_length: int = Field(
        default=64, ge=2, le=4096, description="longer answers are cut, in tokens, the end's included"
    )
    media_tokens: int = Field(
        default=16,
        ge=1,
        le=256,
        description="what the language model is given of a picture (the next smaller square number), a sound, or at most of a film",
    )

    @model_validator(mode="after")
    def _adapters_lie_in_frozen_weights(self) -> "LanguageModel":
        if self.lora is not None and self.freeze not in (None, True):
            raise wrong(
                "freeze", "lora trains adapters beside frozen weights; leave one of lora and freeze out"
            )
        return self

    @property
    def frozen_share(self) -> float:
        """Of its layers, 0 to 1."""
        return 1.0 if self.freeze is None else float(self.freeze)

    @property
    def is_trained(self) -> bool:
        """Anything of it, adapters included."""
        return self.lora is not None or self.frozen_share < 1

    def settled(self) -> "LanguageModel":
        """With what is trained decided."""
        lora = Lora() if self.freeze is None and self.lora is None else self.lora
        freeze = True if self.freeze is None else self.freeze
        return self.model_copy(update={"lora": lora, "freeze": freeze})


def misfits(tower: Tower, kind: ColumnType) -> Iterator[tuple[str, str]]:
    """The name and the reason of every field of a tower that makes no sense before a language model."""
    if kind in SEEN:
        refused = {
            "max_length": f"does not apply to a column of type {kind}",
            "pool": "the language model reads the frames one by one; leave it out",
        }
    else:
        reason = f"the language model reads a column of type {kind} as text; leave it out"
        refused = dict.fromkeys(type(tower).model_fields, reason)
    for name, field in type(tower).model_fields.items():
        # A settled column of texts says that nothing of it is trained, which is true.
        is_settled = kind not in SEEN and name == "freeze" and tower.is_frozen
        if name in refused and getattr(tower, name) != field.default and not is_settled:
            yield name, refused[name]
    if kind in SEEN:
        yield from tower.misfits(kind)


def settled_columns(towers: Mapping[str, Tower], types: Mapping[str, ColumnType]) -> dict[str, Tower]:
    """`towers` with nothing left open; what the language model reads as text has no encoder."""
    return {name: _settled(tower, types.get(name)) for name, tower in towers.items()}


def _settled(tower: Tower, kind: ColumnType | None) -> Tower:
    if kind is None:
        return tower
    return tower.settled(kind) if kind in SEEN else tower.model_copy(update={"freeze": True})

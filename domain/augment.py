"""A spec's `towers.<column>.augment`: how much a trained tower's inputs are changed at random, in training."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from domain.manifest import ColumnType
from domain.shapes import Shape

_SEEN = ("flip", "crop", "colour")
#: By type: which changes there are.
FIELDS: dict[ColumnType, tuple[str, ...]] = {
    ColumnType.TEXT: ("drop",),
    ColumnType.IMAGE: _SEEN,
    ColumnType.AUDIO: ("gain", "noise", "shift"),
    ColumnType.VIDEO: _SEEN,
}
#: What `light` means. It flips nothing: a mirrored digit, word or direction is another one.
LIGHT = {"crop": 0.7, "colour": 0.2, "gain": 6.0, "noise": 20.0, "shift": 0.1, "drop": 0.1}


def preset(value: Any) -> Any:
    """`light` alone means the object with nothing but that."""
    return {"preset": value} if isinstance(value, str) else value


class Augment(Shape):
    """Random changes of a column's inputs: of seed, epoch and row alone. A film's frames are all changed alike."""

    preset: Literal["none", "light"] = Field(
        default="none",
        description="light: what is not said is crop 0.7, colour 0.2, gain 6, noise 20, shift 0.1, drop 0.1",
    )
    flip: float | None = Field(
        default=None, ge=0, le=1, description="images, films: probability of being mirrored left to right"
    )
    crop: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="images, films: least share of the area that is cut out; sides are 3:4 to 4:3 of the picture's",
    )
    colour: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="images, films: brightness, contrast and saturation are scaled by 1 +- this at most",
    )
    gain: float | None = Field(
        default=None, ge=0, le=60, description="audio: louder or softer, decibels at most"
    )
    noise: float | None = Field(
        default=None,
        ge=-20,
        le=100,
        description="audio: white noise, so many to so many + 20 decibels softer than the sound",
    )
    shift: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="audio: earlier or later, at most so much of its length; silence fills it",
    )
    drop: float | None = Field(
        default=None, ge=0, lt=1, description="text: probability of each word to be left out; one stays"
    )

    def amounts(self, kind: ColumnType) -> dict[str, float]:
        """What is changed in a value of type `kind`, and how much."""
        usual = LIGHT if self.preset == "light" else {}
        said = {name: getattr(self, name) for name in FIELDS.get(kind, ())}
        told = {name: usual.get(name) if amount is None else amount for name, amount in said.items()}
        return {name: amount for name, amount in told.items() if amount is not None}

    def misfits(self, kind: ColumnType) -> Iterator[str]:
        """The fields that are said and are another type's."""
        if kind not in FIELDS:
            return  # the tower refuses all of it
        for name in LIGHT | {"flip": None}:
            if getattr(self, name) is not None and name not in FIELDS[kind]:
                yield name

"""A spec's `fusion`: how the towers' vectors become one."""

from typing import Literal

from pydantic import Field, model_validator

from domain.shapes import Shape, wrong

#: Which fusions have an option of their own.
FUSION_OPTIONS = {"rank": ("low_rank_tensor",), "alignment": ("mmd", "adversarial")}


class Fusion(Shape):
    """How the towers' vectors become one."""

    type: Literal[
        "concat",
        "mean",
        "sum",
        "max",
        "gated",
        "attention",
        "cross_attention",
        "film",
        "tensor",
        "low_rank_tensor",
        "cnn",
        "mmd",
        "adversarial",
        "single_stream",
        "co_attention",
        "cross_modal",
    ] = Field(
        default="concat",
        description="what is done with the vectors, once each has `dim` numbers; the last three are those of the families "
        "mm-bert, vilbert and mult, which set them",
    )
    dim: int = Field(
        default=256,
        ge=1,
        le=16384,
        description="width of the fused vector; 128 if not said where the family reads tokens",
    )
    modality_dropout: float = Field(
        default=0.4, ge=0, lt=1, description="share of training cells that are hidden, never all of a row"
    )
    rank: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="low_rank_tensor only: products that are added up; 4 if not said",
    )
    alignment: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="mmd and adversarial only: how much it counts that towers differ; 0.1 if not said",
    )

    layers: int | None = Field(
        default=None,
        ge=1,
        le=24,
        description="of mm-bert, vilbert and mult only: of attention; 2 if not said",
    )
    heads: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="of mm-bert, vilbert and mult only: dim is a multiple of it; if not said, of 32 entries, at most 8",
    )
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="of mm-bert, vilbert and mult only: in attention; 0.1 if not said",
    )

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> "Fusion":
        for option, types in FUSION_OPTIONS.items():
            if getattr(self, option) is not None and self.type not in types:
                raise wrong(option, f"the fusion is {self.type}; {option} goes with {' and '.join(types)}")
        return self

"""Arms of one network that differ in what stands in for a missing modality: mm-gan's generator, a token, or zeros."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.engine.quality.study import Arm
from engine.models.fusion import Fusion
from engine.models.fusion.imputing import Imputing, StandIn

STAND_INS: tuple[StandIn, ...] = ("generator", "token", "zero")


def arms(spec: Mapping[str, Any]) -> list[Arm]:
    """`mm-gan` and what it is compared with: trained alike, with the same towers, fusion and modality dropout."""
    return [
        Arm(
            "mm-gan" if stand_in == "generator" else f"mm-gan, {stand_in} instead",
            {**spec, "family": "mm-gan"},
            partial(_standing_in, stand_in),
        )
        for stand_in in STAND_INS
    ]


def _standing_in(
    stand_in: StandIn, fusion: Fusion, widths: Sequence[int], dim: int, modality_dropout: float
) -> Imputing:
    return Imputing(fusion, widths, dim, modality_dropout, stand_in)

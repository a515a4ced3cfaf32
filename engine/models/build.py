"""Spec -> network, in one place: below it modules take plain values."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from domain.errors import EngineError
from domain.families import TOKEN_OPTIONS, reads_tokens
from domain.fusions import FUSION_OPTIONS
from domain.fusions import Fusion as FusionSpec
from domain.manifest import TABULAR, Column, ColumnType, Schema
from domain.specs import Multimodal as Spec
from domain.tasks import Task
from domain.towers import Tower
from engine.data.column_statistics import Statistics
from engine.models import heads
from engine.models.encoders import Encoder, load_encoder
from engine.models.families import TOKEN_FUSIONS
from engine.models.freeze import freeze_layers, freeze_share, layers_of
from engine.models.fusion import FUSIONS, Fusion
from engine.models.fusion.imputing import Imputing
from engine.models.joint import JointSpace
from engine.models.lora import add_lora
from engine.models.multimodal import Multimodal
from engine.models.tabular import tabular_encoder

#: Of the fused vector's entries, before the head, in training.
HEAD_DROPOUT = 0.2


def build_model(
    spec: Spec,
    schema: Schema,
    classes: int,
    folders: Mapping[str, Path],
    statistics: Mapping[str, Statistics] | None = None,
) -> Multimodal:
    """The network of `spec`: its towers' columns are typed by `schema`, their encoders lie in `folders`.

    `spec` has its task and its towers decided; `classes` are none for a regression and for family clip; `statistics` are those of number
    and category columns.
    """
    told = statistics or {}
    encoders = {
        name: tabular_encoder(schema.columns[name].type, told[name], reads_tokens=reads_tokens(spec.family))
        if name in told
        else _encoder(spec, schema, name, folders)
        for name in sorted(spec.towers)
    }
    widths = [encoder.width for encoder in encoders.values()]
    frozen = frozenset(name for name, tower in spec.towers.items() if tower.is_frozen)
    if spec.family == "clip":
        space = JointSpace(widths, spec.fusion.dim, has_bias=spec.loss.type == "siglip")
        return Multimodal(encoders, frozen, space, nn.Identity())
    kinds = [schema.columns[name].type for name in encoders]
    tokens = reads_tokens(spec.family)
    fusion = _token_fusion(spec.fusion, widths, kinds) if tokens else _fusion(spec, widths)
    return Multimodal(encoders, frozen, fusion, _head(spec, classes))


def _fusion(spec: Spec, widths: Sequence[int]) -> Fusion:
    asked = spec.fusion
    if spec.family == "mm-gan":
        completed = _late(asked, [asked.dim] * len(widths), modality_dropout=0.0)
        return Imputing(completed, widths, asked.dim, asked.modality_dropout)
    return _late(asked, widths, asked.modality_dropout)


def _late(asked: FusionSpec, widths: Sequence[int], modality_dropout: float) -> Fusion:
    said = {name: getattr(asked, name) for name in FUSION_OPTIONS if getattr(asked, name) is not None}
    return FUSIONS[asked.type](widths, asked.dim, modality_dropout, **said)


def _token_fusion(spec: FusionSpec, widths: Sequence[int], kinds: Sequence[ColumnType]) -> Fusion:
    """Number and category columns, a token each, are one stream together: they are many, and say little each."""
    said = {name: getattr(spec, name) for name in TOKEN_OPTIONS if getattr(spec, name) is not None}
    media = [[place] for place, kind in enumerate(kinds) if kind not in TABULAR]
    tabular = [place for place, kind in enumerate(kinds) if kind in TABULAR]
    streams = media + ([tabular] if tabular else [])
    return TOKEN_FUSIONS[spec.type](widths, spec.dim, spec.modality_dropout, streams, **said)


def _head(spec: Spec, classes: int) -> nn.Module:
    if spec.task == Task.REGRESSION:
        return heads.regressor(spec.fusion.dim)
    return heads.classifier(spec.fusion.dim, classes, HEAD_DROPOUT)


def _encoder(spec: Spec, schema: Schema, name: str, folders: Mapping[str, Path]) -> Encoder:
    path = f"multimodal.towers.{name}"
    if name not in schema.columns:
        raise EngineError("missing_column", f"the data has no column '{name}'", param=path)
    column = schema.columns[name]
    tower = spec.towers[name]
    try:
        read_as = within(tower, column)
        encoder = load_encoder(folders[name], column.type, read_as, reads_tokens=reads_tokens(spec.family))
        choose_trained(encoder.network, tower)
        return encoder
    except EngineError as error:
        raise EngineError(error.code, error.message, param=path) from error


def choose_trained(network: nn.Module, tower: Tower) -> None:
    """Freezes what `tower` says is not trained; puts its adapters in."""
    if tower.layer_decay is not None:
        layers_of(network)  # refused here, by the tower's path, if there are none
    if tower.lora is not None:
        add_lora(network, tower.lora)
    elif tower.freeze_layers is not None:
        freeze_layers(network, tower.freeze_layers)
    else:
        freeze_share(network, tower.frozen_share)


def within(tower: Tower, column: Column) -> Tower:
    """What a tower says of its own input counts first, what its column says second."""
    said = {"max_seconds": column.max_seconds, "num_frames": column.num_frames}
    return tower.model_copy(update={k: v for k, v in said.items() if getattr(tower, k) is None})

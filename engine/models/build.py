"""Spec -> network, in one place: below it modules take plain values."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from domain.errors import EngineError
from domain.fusions import FUSION_OPTIONS
from domain.fusions import Fusion as FusionSpec
from domain.manifest import Column, Schema
from domain.specs import Multimodal as Spec
from domain.tasks import Task
from domain.towers import Tower
from engine.data.column_statistics import Statistics
from engine.models import heads
from engine.models.encoders import Encoder, load_encoder
from engine.models.freeze import freeze_layers, freeze_share, layers_of
from engine.models.fusion import FUSIONS, Fusion
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

    `spec` has its task and its towers decided; `classes` are none for a regression; `statistics` are those of number
    and category columns.
    """
    told = statistics or {}
    encoders = {
        name: tabular_encoder(schema.columns[name].type, told[name])
        if name in told
        else _encoder(spec, schema, name, folders)
        for name in sorted(spec.towers)
    }
    widths = [encoder.width for encoder in encoders.values()]
    fusion = _fusion(spec.fusion, widths)
    frozen = frozenset(name for name, tower in spec.towers.items() if tower.is_frozen)
    return Multimodal(encoders, frozen, fusion, _head(spec, classes))


def _fusion(spec: FusionSpec, widths: Sequence[int]) -> Fusion:
    said = {name: getattr(spec, name) for name in FUSION_OPTIONS if getattr(spec, name) is not None}
    return FUSIONS[spec.type](widths, spec.dim, spec.modality_dropout, **said)


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
        encoder = load_encoder(folders[name], column.type, _within(tower, column))
        _choose_trained(encoder.network, tower)
        return encoder
    except EngineError as error:
        raise EngineError(error.code, error.message, param=path) from error


def _choose_trained(network: nn.Module, tower: Tower) -> None:
    if tower.layer_decay is not None:
        layers_of(network)  # refused here, by the tower's path, if there are none
    if tower.lora is not None:
        add_lora(network, tower.lora)
    elif tower.freeze_layers is not None:
        freeze_layers(network, tower.freeze_layers)
    else:
        freeze_share(network, tower.frozen_share)


def _within(tower: Tower, column: Column) -> Tower:
    """What a tower says of its own input counts first, what its column says second."""
    said = {"max_seconds": column.max_seconds, "num_frames": column.num_frames}
    return tower.model_copy(update={k: v for k, v in said.items() if getattr(tower, k) is None})

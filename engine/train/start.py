"""What a training takes over from a model: trained towers, projections, and fusion and head where they are the same.

Columns are matched first; then weights go by column, never by place. What is not taken over is told.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from domain.errors import EngineError
from domain.families import reads_tokens
from domain.manifest import Schema
from domain.specs import Multimodal as Spec
from domain.towers import Lora
from engine.data.column_statistics import Statistics, as_json
from engine.models.encoders import Encoder
from engine.models.multimodal import Multimodal
from engine.models.store import read_config, read_weights
from engine.models.tokens import MAX_TOKENS
from engine.models.vision_language import VisionLanguage
from engine.train.placing import fill, placed_in
from engine.train.projections import names_of_projection, read_projection, write_projection
from engine.train.start_language import refuse_another_kind, refuse_another_language, take_language

#: What a tower says that changes nothing of what its encoder reads.
_NOT_READ = {"freeze", "freeze_layers", "lr", "layer_decay", "augment", "max_tokens"}


@dataclass(frozen=True)
class Start:
    """A model folder, read."""

    spec: Spec
    schema: Schema
    classes: list[str]
    #: As its config tells them: encoder and fingerprint, or statistics.
    towers: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, Tensor]
    #: sha256 of all that is taken over from.
    digest: str
    #: Of a model that writes: the language model's id and fingerprint.
    language: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """In the network's order; without those that a language model reads as text."""
        return sorted(name for name, told in self.towers.items() if told.get("encoder", "") is not None)

    def of_tower(self, column: str) -> dict[str, Tensor]:
        """The tower's weights by their names inside of it."""
        prefix = f"encoders.{self.names.index(column)}."
        return {n.removeprefix(prefix): w for n, w in self.weights.items() if n.startswith(prefix)}

    def of(self, part: str) -> dict[str, Tensor]:
        """The weights of `fusion`, `head` or `language` by their names inside of it."""
        return {n.removeprefix(f"{part}."): w for n, w in self.weights.items() if n.startswith(f"{part}.")}


@dataclass
class Taken:
    """What was taken over, in words that a report tells."""

    #: Ours -> the start model's.
    columns: dict[str, str]
    #: sha256 of the model.
    digest: str
    taken: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    #: Our columns whose projections into the fusion were taken over.
    projected: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        left = f" Begun anew: {', '.join(self.left)}." if self.left else ""
        return f"Training starts from a model. Taken over: {', '.join(self.taken) or 'nothing'}.{left}"

    def as_dict(self) -> dict[str, Any]:
        return {"columns": self.columns, "model_sha256": self.digest, "taken": self.taken, "left": self.left}


def open_start(folder: Path) -> Start:
    """Raises EngineError: `model_unreadable`, `model_too_new`."""
    config = read_config(folder)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    weights = read_weights(folder)
    for name in sorted(weights):
        digest.update(name.encode() + b"\0")
        digest.update(weights[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    spec, schema = Spec.model_validate(config["spec"]), Schema.model_validate(config["schema"])
    told = (config["classes"], config["towers"], weights, digest.hexdigest())
    return Start(spec, schema, *told, language=config.get("language_model", {}))


def take_over(
    start: Start,
    model: Multimodal,
    spec: Spec,
    schema: Schema,
    classes: list[str],
    statistics: Mapping[str, Statistics],
) -> Taken:
    """Changes `model`, which was just built, in place.

    Raises EngineError: `encoder_changed` where a column's encoder or the language model is another one, `start_mismatch`
    where nothing fits or what was trained has no place.
    """
    refuse_another_kind(start, spec)
    if isinstance(model, VisionLanguage):
        refuse_another_language(start, model)
        _refuse_other_scale(_language_lora(start.spec), _language_lora(spec), "language_model.lora")
    found = Taken(_matched(start, model, spec, schema), start.digest)
    if not found.columns and not isinstance(model, VisionLanguage):
        there = ", ".join(f"{name} ({start.schema.columns[name].type})" for name in start.names)
        message = f"none of the columns is one of the model's that training starts from: {there}; say which by start_columns"
        raise EngineError("start_mismatch", message, param="multimodal.start_columns")
    for ours, theirs in found.columns.items():
        _refuse_other_scale(start.spec.towers[theirs].lora, spec.towers[ours].lora, f"towers.{ours}")
        _take_tower(start, model, ours, theirs, statistics, found)
    if isinstance(model, VisionLanguage):
        take_language(start, model, found)
    else:
        _take_fusion(start, model, spec, classes, found)
    found.left += [f"column '{name}'" for name in model.names if name not in found.columns]
    return found


def _language_lora(spec: Spec) -> Lora | None:
    return spec.language_model.settled().lora if spec.language_model else None


def _matched(start: Start, model: Multimodal, spec: Spec, schema: Schema) -> dict[str, str]:
    """By what the spec says, by name, and by type where both have one column of it left."""
    for ours, theirs in spec.start_columns.items():
        if ours not in model.names or theirs not in start.names:
            message = f"'{ours}: {theirs}' names no pair of columns; the model has: {', '.join(start.names)}"
            raise EngineError("start_mismatch", message, param="multimodal.start_columns")
    matched = dict(spec.start_columns)
    types = {name: schema.columns[name].type for name in model.names}
    known = {name: start.schema.columns[name].type for name in start.names}
    for name, kind in types.items():
        if name not in matched and known.get(name) == kind and name not in matched.values():
            matched[name] = name
    ours_left = {name: kind for name, kind in types.items() if name not in matched}
    left = {name: kind for name, kind in known.items() if name not in matched.values()}
    for name, kind in ours_left.items():
        alike = [other for other, of in left.items() if of == kind]
        if len(alike) == 1 and Counter(ours_left.values())[kind] == 1:
            matched[name] = alike[0]
    return dict(sorted(matched.items()))


def _take_tower(
    start: Start,
    model: Multimodal,
    ours: str,
    theirs: str,
    statistics: Mapping[str, Statistics],
    found: Taken,
) -> None:
    told, encoder = start.towers[theirs], model.encoder(ours)
    if "fingerprint" not in told or ours in statistics:
        _take_plain(start, encoder, ours, theirs, statistics, found)
        return
    if not _is_same_encoder(start, encoder, theirs):
        raise _another_encoder(start, ours, theirs)
    weights = start.of_tower(theirs)
    placed = placed_in(weights, encoder)
    lost = sorted(name for name in weights if name not in placed and not name.startswith("pool."))
    if lost:
        message = (
            f"the model's tower '{theirs}' was trained in a way that '{ours}' is not built for: it has no {lost[0]}; give it "
            "the same lora"
        )
        raise EngineError("start_mismatch", message, param=f"multimodal.towers.{ours}")
    _fill(model, ours, {placed[name]: weights[name] for name in placed})
    if placed:
        found.taken.append(f"trained weights of tower '{ours}'")
    if len(placed) < len(weights):
        found.left.append(f"pool of tower '{ours}'")


def _refuse_other_scale(before: Lora | None, now: Lora | None, path: str) -> None:
    """Adapters mean something only with what they are multiplied by."""
    if before is not None and now is not None and before.alpha != now.alpha:
        message = f"the model's adapters were trained with alpha {before.alpha}, not {now.alpha}; give them the same"
        raise EngineError("start_mismatch", message, param=f"multimodal.{path}")


def _take_plain(
    start: Start,
    encoder: nn.Module,
    ours: str,
    theirs: str,
    statistics: Mapping[str, Statistics],
    found: Taken,
) -> None:
    """A number's or category's tower means something only with the statistics that it was trained by."""
    own = json.loads(json.dumps(as_json(statistics[ours]))) if ours in statistics else None
    if own is not None and start.towers[theirs].get("statistics") == own:
        encoder.load_state_dict(start.of_tower(theirs), strict=False)
        found.taken.append(f"tower '{ours}'")
    else:
        found.left.append(f"tower '{ours}', whose values are other ones")


def _is_same_encoder(start: Start, encoder: Encoder, theirs: str) -> bool:
    """Of the same weights and inputs; into how many tokens they are read is nothing that weights depend on."""
    told = start.towers[theirs]["fingerprint"]
    tokens = start.spec.towers[theirs].max_tokens or MAX_TOKENS
    most = tokens if reads_tokens(start.spec.family) else None
    # To read all of the files once more takes a while.
    return told == encoder.fingerprint or (
        most != encoder.max_tokens and told == encoder.fingerprint_with(most)
    )


def _another_encoder(start: Start, ours: str, theirs: str) -> EngineError:
    tower = start.spec.towers[theirs]
    told = tower.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_READ)
    message = (
        f"the model's column '{theirs}' was read by another encoder, or otherwise, than '{ours}' is; write for it what the "
        f"model has: {told}"
    )
    return EngineError("encoder_changed", message, param=f"multimodal.towers.{ours}")


def _fill(model: Multimodal, ours: str, weights: Mapping[str, Tensor]) -> None:
    encoder, prefix = model.encoder(ours), f"encoders.{model.names.index(ours)}."
    carried = fill(encoder, weights)
    model.carried |= frozenset(prefix + name for name in carried)
    if carried:
        digest = hashlib.sha256()
        for name in carried:
            digest.update(
                name.encode() + weights[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
        # Its features are no longer those of the encoder that it is named after.
        encoder.carries = digest.hexdigest()


def _take_fusion(start: Start, model: Multimodal, spec: Spec, classes: list[str], found: Taken) -> None:
    if _is_same_fusion(start, model, spec, found):
        model.fusion.load_state_dict(start.of("fusion"))
        found.taken.append("fusion")
        found.projected = list(model.names)
        _take_head(start, model, spec, classes, found)
        return
    projected = found.projected = list(_projected(start, model, found))
    if projected:
        found.taken.append(f"projections of {', '.join(repr(name) for name in projected)}")
    found.left += [
        "all else of the fusion" if projected else "fusion",
        *([] if spec.family == "clip" else ["head"]),
    ]


def _is_same_fusion(start: Start, model: Multimodal, spec: Spec, found: Taken) -> bool:
    """Of the same columns in the same order, and of the same shapes: its weights go by place."""
    in_order = [found.columns.get(name) for name in model.names] == start.names
    kinds = (spec.family, spec.fusion.type) == (start.spec.family, start.spec.fusion.type)
    own = {name: w.shape for name, w in model.fusion.state_dict().items()}
    return in_order and kinds and own == {name: w.shape for name, w in start.of("fusion").items()}


def _projected(start: Start, model: Multimodal, found: Taken) -> Iterator[str]:
    old, new = start.of("fusion"), model.fusion.state_dict()
    for ours, theirs in found.columns.items():
        projection = read_projection(old, start.names.index(theirs))
        place = model.names.index(ours)
        if projection is not None and write_projection(new, place, projection):
            model.taught |= {f"fusion.{name}" for name in names_of_projection(new, place)}
            yield ours


def _take_head(start: Start, model: Multimodal, spec: Spec, classes: list[str], found: Taken) -> None:
    own = {name: w.shape for name, w in model.head.state_dict().items()}
    if not own:
        return
    told = start.of("head")
    same = (spec.task, classes) == (start.spec.task, start.classes)
    if same and own == {name: w.shape for name, w in told.items()}:
        model.head.load_state_dict(told)
        found.taken.append("head")
    else:
        found.left.append("head")

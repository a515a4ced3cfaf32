"""A trained model as a folder. Frozen encoders are named, not copied; whatever was trained is in it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from domain.errors import EngineError
from domain.manifest import Schema
from domain.specs import Multimodal as Spec
from engine.data.column_statistics import Statistics, as_json, read_statistics
from engine.data.durable import write_durably
from engine.data.targets import Scale
from engine.models.card import model_card
from engine.models.multimodal import Multimodal
from engine.models.opening import open_model
from engine.models.vision_language import VisionLanguage

FORMAT = 1


@dataclass(frozen=True)
class Card:
    """What a model is, beside its weights."""

    spec: Spec
    schema: Schema
    #: In the order of the logits; none for a regression.
    classes: list[str]
    metrics: dict[str, float]
    #: A regression's network gives standardised values, which `target.undone` turns into the data's own.
    target: Scale | None = None
    #: Of number and category columns, by their training rows.
    statistics: Mapping[str, Statistics] = field(default_factory=dict)


def save_model(folder: Path, model: Multimodal, card: Card) -> None:
    folder.mkdir(parents=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in model.kept()}
    write_durably(folder / "model.safetensors", save(weights))
    described = _described(model, card)
    write_durably(folder / "README.md", model_card(described).encode())
    write_durably(folder / "config.json", json.dumps(described, indent=1).encode())


def _described(model: Multimodal, card: Card) -> dict[str, Any]:
    return {
        "plait_format": FORMAT,
        "spec": card.spec.model_dump(mode="json", by_alias=True),
        "schema": card.schema.model_dump(mode="json"),
        "classes": card.classes,
        "target": asdict(card.target) if card.target else None,
        "towers": {name: _tower(model, card, name) for name in sorted(card.spec.towers)},
        # Frozen, and not the encoder's own: the weights of towers that another training left.
        **({"carried": sorted(model.carried)} if model.carried else {}),
        "metrics": card.metrics,
        **_language(model, card),
    }


def _language(model: Multimodal, card: Card) -> dict[str, Any]:
    if not isinstance(model, VisionLanguage) or card.spec.language_model is None:
        return {}
    told = {"model": card.spec.language_model.model, "fingerprint": model.language.fingerprint}
    return {"language_model": told}


def _tower(model: Multimodal, card: Card, name: str) -> dict[str, Any]:
    if name in card.statistics:
        return {"statistics": as_json(card.statistics[name])}
    if name not in model.names:
        # A language model reads it as text.
        return {"encoder": None}
    return {"encoder": card.spec.towers[name].encoder, "fingerprint": model.encoder(name).fingerprint}


def load_model(folder: Path, encoders: Callable[[str], Path]) -> tuple[Multimodal, Card]:
    """The model as it was trained; refuses a newer format and encoders that are not the same."""
    config = read_config(folder)
    spec, schema = Spec.model_validate(config["spec"]), Schema.model_validate(config["schema"])
    statistics = _statistics(config, schema, folder)
    model = open_model(spec, schema, len(config["classes"]), encoders, statistics)
    for name, tower in config["towers"].items():
        if "fingerprint" in tower and model.encoder(name).fingerprint != tower["fingerprint"]:
            raise EngineError(
                "encoder_changed", f"{tower['encoder']} is not the one the model was trained on"
            )
    if (
        isinstance(model, VisionLanguage)
        and model.language.fingerprint != config["language_model"]["fingerprint"]
    ):
        name = config["language_model"]["model"]
        raise EngineError("encoder_changed", f"{name} is not the one the model was trained on")
    model.carried = frozenset(config.get("carried", ()))
    _fill(model, folder)
    model.eval()
    # Folders of the first version know no regression, and no target.
    target = Scale(**config["target"]) if config.get("target") else None
    return model, Card(spec, schema, config["classes"], config["metrics"], target, statistics)


def _statistics(config: dict[str, Any], schema: Schema, folder: Path) -> dict[str, Statistics]:
    """Of all towers that have no encoder to be read by."""
    try:
        return {
            name: read_statistics(tower["statistics"], schema.columns[name].type)
            for name, tower in config["towers"].items()
            if "encoder" not in tower
        }
    except (KeyError, TypeError, ValueError) as error:
        message = f"{folder} does not say what its number and category columns are read by: {error!r}"
        raise EngineError("model_unreadable", message) from error


def read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        version = config["plait_format"]
    except (OSError, ValueError, KeyError) as error:
        raise EngineError("model_unreadable", f"{folder} is not a model of Plait: {error}") from error
    if version > FORMAT:
        message = f"model of format {version}: this Plait reads up to {FORMAT}; update it"
        raise EngineError("model_too_new", message)
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All that the folder has of the network, by name. Raises EngineError `model_unreadable`."""
    path = folder / "model.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise EngineError("model_unreadable", f"{path} cannot be read: {error}") from error


def _fill(model: Multimodal, folder: Path) -> None:
    weights = read_weights(folder)
    if {name for name, _ in model.kept()} != set(weights):
        message = f"{folder / 'model.safetensors'} is of another network than its config says"
        raise EngineError("model_unreadable", message)
    model.load_state_dict(weights, strict=False)

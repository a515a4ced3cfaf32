"""What a training of a language model takes over from a model that writes: the language model, and what stands in."""

from typing import TYPE_CHECKING

import torch

from domain.errors import EngineError
from domain.specs import Multimodal as Spec
from engine.models.vision_language import VisionLanguage
from engine.train.placing import fill, placed_in

if TYPE_CHECKING:  # which takes over all else
    from engine.train.start import Start, Taken

_PATH = "multimodal.language_model"


def refuse_another_kind(start: "Start", spec: Spec) -> None:
    """Raises EngineError `start_mismatch` where one of the two writes and the other does not: they share no weights."""
    writes = (start.spec.family == "vlm", spec.family == "vlm")
    if writes[0] != writes[1]:
        message = (
            f"the job is of the family {spec.family} and the model that it starts from of {start.spec.family}; a vlm reads "
            "through projectors into its language model, and takes over from another vlm only, as no other family does"
        )
        raise EngineError("start_mismatch", message, param="model")


def refuse_another_language(start: "Start", model: VisionLanguage) -> None:
    """Raises EngineError `encoder_changed`."""
    if start.language.get("fingerprint") != model.language.fingerprint:
        message = (
            f"the model's answers are written by another language model; write {start.language.get('model')}"
        )
        raise EngineError("encoder_changed", message, param=_PATH)


def take_language(start: "Start", model: VisionLanguage, found: "Taken") -> None:
    """Raises EngineError `start_mismatch` where what was trained has no place."""
    weights = start.of("language")
    placed = placed_in(weights, model.language)
    lost = sorted(set(weights) - set(placed))
    if lost:
        message = (
            f"the model's language model was trained in a way that the job's is not built for: it has no {lost[0]}; give it "
            "the same lora"
        )
        raise EngineError("start_mismatch", message, param=f"{_PATH}.lora")
    carried = fill(model.language, {placed[name]: weight for name, weight in weights.items()})
    model.carried |= frozenset(f"language.{name}" for name in carried)
    if weights:
        found.taken.append("trained weights of the language model")
    _take_missing(start, model, found)


def _take_missing(start: "Start", model: VisionLanguage, found: "Taken") -> None:
    told = start.weights["missing"]
    with torch.no_grad():
        for ours, theirs in found.columns.items():
            model.missing[model.names.index(ours)] = told[start.names.index(theirs)]
    if found.columns:
        found.taken.append("what stands in for missing media")

"""Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174), by torch: a layer keeps its input alone for the backward
pass, which computes the rest of it again. Knows no architecture by name."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from domain.errors import EngineError
from engine.models.freeze import layers_of
from engine.models.multimodal import Multimodal
from engine.models.vision_language import VisionLanguage


def recompute_towers(model: Multimodal, trained: Collection[str]) -> list[str]:
    """Makes each layer of the `trained` towers recompute, and a language model's; what there is to tell the user."""
    told = []
    if isinstance(model, VisionLanguage):
        # Also where it is frozen: what projectors learn comes through all of its layers.
        recompute_layers(model.language.network)
    elif not trained:
        told.append("No encoder is trained, and so gradient_checkpointing has nothing to save.")
    for name in sorted(trained):
        try:
            recompute_layers(model.encoder(name).network)
        except EngineError:
            told.append(
                f"The encoder of '{name}' has no list of layers: gradient_checkpointing leaves it as it is."
            )
    return told


def recompute_layers(network: nn.Module) -> None:
    """In place. Raises EngineError for a network that has no list of layers."""
    for layer in layers_of(network):
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Draws of a dropout are the same in both passes: torch puts the generators back."""
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, **named)

"""Weights of another training, by their names, into a network that may be adapted or frozen otherwise."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

#: What `peft` puts around a layer that it adapts.
_WRAPPED = ("base_model.model.", ".base_layer")


def placed_in(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, str]:
    """Name in `weights` -> the parameter of `network` that it goes to: that of its name, or that of a layer that is adapted
    now. What has no place is not in it."""
    known = dict(network.named_parameters())
    plain = {_plain(own): own for own in known if "lora_" not in own}
    places = {name: name if name in known else plain.get(_plain(name)) for name in weights}
    return {
        name: place
        for name, place in places.items()
        if place is not None and known[place].shape == weights[name].shape
    }


def fill(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """By the parameters' names, in place; those of them that are not trained."""
    known = dict(network.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            known[name].copy_(weight)
    return sorted(name for name in weights if not known[name].requires_grad)


def _plain(name: str) -> str:
    for word in _WRAPPED:
        name = name.replace(word, "." if word.startswith(".") and not name.endswith(word) else "")
    return name.replace("..", ".")

"""An encoder's layers, counted from its input: freezes the first ones, and says how deep each parameter lies.

Knows no architecture by name.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile

from torch import nn

from domain.errors import EngineError


def freeze_share(network: nn.Module, share: float) -> None:
    """Freezes all, nothing, or embeddings and the first `share` of the layers, rounded down.

    Raises EngineError for a network that has no list of layers.
    """
    if share >= 1:
        network.requires_grad_(False)
    elif share > 0:
        layers = layers_of(network)
        # Shares such as 0.3 of 10 layers must not lose one to rounding.
        _freeze(network, layers, int(share * len(layers) + 1e-6))


def freeze_layers(network: nn.Module, count: int) -> None:
    """Freezes embeddings and the first `count` layers. Raises EngineError for a network that has no more than so many."""
    layers = layers_of(network)
    if count >= len(layers):
        message = f"this encoder has {len(layers)} layers: freeze_layers is less, or set freeze to true to freeze all"
        raise EngineError("invalid_spec", message)
    _freeze(network, layers, count)


def depths(network: nn.Module) -> dict[str, int]:
    """Parameter -> how many layers lie above its own: 0 for the last layer and what follows it.

    What comes before the first layer counts as one more. Raises EngineError for a network that has no list of layers.
    """
    layers = layers_of(network)
    found = {id(p): len(layers) - 1 - place for place, layer in enumerate(layers) for p in layer.parameters()}
    before = {id(p) for p in _before(network, layers[0])}
    return {
        name: len(layers) if id(p) in before else found.get(id(p), 0)
        for name, p in network.named_parameters()
    }


def _freeze(network: nn.Module, layers: Sequence[nn.Module], count: int) -> None:
    for parameter in _before(network, layers[0]):
        parameter.requires_grad_(False)
    for layer in layers[:count]:
        layer.requires_grad_(False)


def layers_of(network: nn.Module) -> Sequence[nn.Module]:
    """The list that holds the most parameters: a transformer's blocks, a convolutional network's stages."""
    found = list(network.modules())
    lists: list[nn.Module] = [m for m in found if isinstance(m, nn.ModuleList) and len(m) > 0]
    # Plain stacks are written as one sequence; inside other networks sequences are parts of a layer.
    lists = lists or [m for m in found if isinstance(m, nn.Sequential) and len(m) > 1]
    if not lists:
        message = "this encoder has no list of layers to count; set freeze to true or false"
        raise EngineError("invalid_spec", message)
    return list(max(lists, key=lambda layers: sum(p.numel() for p in layers.parameters())).children())


def _before(network: nn.Module, first: nn.Module) -> Iterator[nn.Parameter]:
    """Embeddings and stems: what a network lists before its first layer."""
    begins = next((id(p) for p in first.parameters()), None)
    return takewhile(lambda parameter: id(parameter) != begins, network.parameters())

"""Freezes the part of an encoder that is next to its input. Knows no architecture by name."""

from collections.abc import Sequence

from torch import nn

from domain.errors import EngineError


def freeze_share(network: nn.Module, share: float) -> None:
    """Freezes all, nothing, or embeddings and the first `share` of the layers, rounded down.

    Raises EngineError for a network that has no list of layers.
    """
    if share >= 1:
        network.requires_grad_(False)
    elif share > 0:
        layers = _layers(network)
        _freeze_before(network, layers[0])
        # Shares such as 0.3 of 10 layers must not lose one to rounding.
        for layer in layers[: int(share * len(layers) + 1e-6)]:
            layer.requires_grad_(False)


def _layers(network: nn.Module) -> Sequence[nn.Module]:
    """The list that holds the most parameters: a transformer's blocks, a convolutional network's stages."""
    found = list(network.modules())
    lists: list[nn.Module] = [m for m in found if isinstance(m, nn.ModuleList) and len(m) > 0]
    # Plain stacks are written as one sequence; inside other networks sequences are parts of a layer.
    lists = lists or [m for m in found if isinstance(m, nn.Sequential) and len(m) > 1]
    if not lists:
        message = "this encoder has no list of layers to freeze a share of; set freeze to true or false"
        raise EngineError("invalid_spec", message)
    return list(max(lists, key=lambda layers: sum(p.numel() for p in layers.parameters())).children())


def _freeze_before(network: nn.Module, first: nn.Module) -> None:
    """Embeddings and stems: what a network lists before its first layer."""
    begins = next((id(p) for p in first.parameters()), None)
    for parameter in network.parameters():
        if id(parameter) == begins:
            return
        parameter.requires_grad_(False)

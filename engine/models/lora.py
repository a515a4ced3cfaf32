"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) inside of a pretrained network, by `peft`."""

import re

from torch import nn

from domain.errors import EngineError
from domain.towers import Lora

#: What `peft` calls an adapter's own dropout, inside of the layer that it adapts.
_DROPOUT = "lora_dropout"


def add_lora(network: nn.Module, lora: Lora) -> None:
    """Freezes `network` and puts adapters, which are trained, beside each of its linear layers (or those it names).

    A network without linear layers has them beside its convolutions, but those by groups (depthwise ones).
    In place: what a call of the network means stays the same, and at first gives what it gave before. Raises EngineError
    where `network` has no such layer.
    """
    # It takes seconds to load, and most models have no adapters.
    from peft import LoraConfig, inject_adapter_in_model

    chosen = _layers(network, lora.target_modules)
    if not chosen:
        raise EngineError("invalid_spec", f"{_lack(network, lora.target_modules)}; lora has nothing to adapt")
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        # As one expression: of a list, ends of names would be looked for as well.
        target_modules="|".join(map(re.escape, chosen)),
        bias="none",
    )
    inject_adapter_in_model(config, network)
    for path in chosen:
        _show_shape(network.get_submodule(path))


def _show_shape(adapted: nn.Module) -> None:
    """Some networks (MobileNet) look at their own convolutions, which now lie inside of what adapts them."""
    inner = adapted.get_submodule("base_layer")
    if isinstance(inner, nn.Conv2d):
        for word in ("stride", "kernel_size", "padding", "dilation"):
            setattr(adapted, word, getattr(inner, word))


def train_adapters_alone(network: nn.Module, mode: bool) -> None:
    """Puts a network that has adapters into evaluation, and the adapters' own dropout into training if `mode`.

    Its weights stay as they are, so that their dropout would be noise. Others are left alone.
    """
    dropouts = [module for path, module in network.named_modules() if path.rpartition(".")[2] == _DROPOUT]
    if dropouts:
        network.eval()
    for dropout in dropouts:
        dropout.train(mode)


def _layers(network: nn.Module, names: list[str]) -> list[str]:
    """The full names of the layers to adapt: those whose last word is among `names`, or all of the best kind."""
    named = [
        (path, module)
        for path, module in network.named_modules()
        if not names or path.rpartition(".")[2] in names
    ]
    linear = [path for path, module in named if type(module) is nn.Linear]
    convolutions = [path for path, module in named if isinstance(module, nn.Conv2d) and _takes(module)]
    return linear + convolutions if names else linear or convolutions


def _takes(layer: nn.Conv2d) -> bool:
    """An adapter is a convolution over all channels, and knows neither dilation nor another padding than zeros."""
    return layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"


def _lack(network: nn.Module, names: list[str]) -> str:
    if not names:
        return "this encoder has no linear layer and no convolution that is not by groups or dilated"
    wanted = ", ".join(names)
    there = sorted({path.rpartition(".")[2] for path in _layers(network, [])} - {""})
    instead = f" (there are: {', '.join(there[:20])})" if there else ""
    return f"this encoder has no linear layer or plain convolution named {wanted}{instead}"

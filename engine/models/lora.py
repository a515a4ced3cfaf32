"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) inside of a pretrained network, by `peft`."""

from torch import nn

from domain.errors import EngineError
from domain.towers import Lora


def add_lora(network: nn.Module, lora: Lora) -> None:
    """Freezes `network` and puts adapters, which are trained, beside each of its linear layers (or those it names).

    In place: what a call of the network means stays the same, and at first gives what it gave before. Raises EngineError
    where `network` has no such layer.
    """
    # It takes seconds to load, and most models have no adapters.
    from peft import LoraConfig, inject_adapter_in_model

    chosen = _layers(network, lora.target_modules)
    if not chosen:
        wanted = f"named {', '.join(lora.target_modules)}" if lora.target_modules else "that is linear"
        raise EngineError("invalid_spec", f"this encoder has no layer {wanted}; lora has nothing to adapt")
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=chosen, bias="none"
    )
    inject_adapter_in_model(config, network)


def _layers(network: nn.Module, names: list[str]) -> list[str]:
    """The full names of the linear layers, or of those whose last word is among `names`."""
    return [
        path
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) and (not names or path.rpartition(".")[2] in names)
    ]

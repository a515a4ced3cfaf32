"""Low-rank adapters: what they leave alone, and what they train."""

import pytest
import torch
from torch import nn

from domain.errors import EngineError
from domain.towers import Lora
from engine.models.lora import add_lora


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))


def test_adapters_change_nothing_before_they_are_trained():
    plain, adapted, rows = network(), network(), torch.randn(5, 6)
    add_lora(adapted, Lora(r=2))
    assert torch.equal(plain(rows), adapted(rows))


def test_only_the_adapters_are_trained():
    adapted = network()
    add_lora(adapted, Lora(r=2))
    trained = {name: p.shape for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained == {
        "0.lora_A.default.weight": (2, 6),
        "0.lora_B.default.weight": (8, 2),
        "2.lora_A.default.weight": (2, 8),
        "2.lora_B.default.weight": (4, 2),
    }


def test_named_layers_alone_are_adapted():
    adapted = network()
    add_lora(adapted, Lora(target_modules=["2"]))
    assert {name.split(".")[0] for name, p in adapted.named_parameters() if p.requires_grad} == {"2"}


@pytest.mark.parametrize("lora", [Lora(target_modules=["query"]), Lora()])
def test_a_network_without_such_layers_is_refused(lora):
    stack = nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)) if not lora.target_modules else network()
    with pytest.raises(EngineError, match="lora has nothing to adapt"):
        add_lora(stack, lora)

"""Gradient checkpointing: less is kept, and nothing else is different."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, MobileNetV2Config, MobileNetV2Model

from domain.errors import EngineError
from domain.towers import Lora
from engine.models.lora import add_lora
from engine.models.recompute import recompute_layers
from support.datasets import tiny_av
from support.encoders import IMAGE, TEXT
from support.tuning import Tuning

SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}


def _bert() -> nn.Module:
    return BertModel(BertConfig(vocab_size=9, **SIZES)).train()


def _adapted() -> nn.Module:
    network = BertModel(BertConfig(vocab_size=9, **SIZES))
    add_lora(network, Lora(r=2, dropout=0.3))
    return network.train()


def _mobilenet() -> nn.Module:
    return MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.1)).eval()


INPUTS: dict[Any, dict[str, Tensor]] = {
    _bert: {"input_ids": torch.arange(8).view(2, 4)},
    _adapted: {"input_ids": torch.arange(8).view(2, 4)},
    _mobilenet: {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)},
}


@contextmanager
def _kept_bytes() -> Iterator[list[int]]:
    """What is kept for the backward pass, each storage once."""
    seen: set[int] = set()
    total = [0]

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total


@pytest.mark.parametrize("make", INPUTS)
def test_a_network_that_recomputes_keeps_less_and_has_the_same_gradients(make: Any) -> None:
    found = {}
    for recomputes in (False, True):
        torch.manual_seed(0)
        network = make()
        if recomputes:
            recompute_layers(network)
        torch.manual_seed(1)
        with _kept_bytes() as kept:
            out = network(**INPUTS[make]).last_hidden_state
        out.square().sum().backward()
        found[recomputes] = kept[0], out, [p.grad for p in network.parameters()], torch.get_rng_state()

    (most, out, grads, rng), (least, again, same, after) = found[False], found[True]
    assert least < 0.7 * most
    assert torch.equal(out, again)
    assert torch.equal(rng, after)
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(grads, same, strict=True))


def test_a_network_that_recomputes_is_evaluated_as_before() -> None:
    network = _bert().eval()
    inputs = INPUTS[_bert]
    with torch.no_grad():
        before = network(**inputs).last_hidden_state
        recompute_layers(network)

        assert torch.equal(network(**inputs).last_hidden_state, before)


TOWERS: dict[str, dict[str, Any]] = {
    "trained": {
        "image": {"encoder": IMAGE, "freeze": 0.5, "lr": 1e-3},
        "text": {"encoder": TEXT, "freeze": False, "lr": 1e-3},
    },
    "adapted": {"text": {"encoder": TEXT, "lora": {"r": 4, "dropout": 0.2}}, "image": {"encoder": IMAGE}},
}


@pytest.mark.parametrize("towers", [pytest.param("trained", marks=pytest.mark.slow), "adapted"])
def test_losses_are_the_same_with_and_without(tmp_path: Path, encoders: dict[str, Path], towers: str) -> None:
    run = Tuning(tmp_path, encoders, tiny_av(tmp_path, rows=24))
    run.go(TOWERS[towers], "plain")
    plain = run.losses(), run.losses("valid_loss")

    run.go(TOWERS[towers], "recomputed", hyper={"gradient_checkpointing": True})

    assert (run.losses(), run.losses("valid_loss")) == plain


def test_a_job_without_a_trained_encoder_is_told_that_there_is_nothing_to_save(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    run = Tuning(tmp_path, encoders, tiny_av(tmp_path, rows=24))

    run.go({"text": {"encoder": TEXT}}, hyper={"gradient_checkpointing": True, "n_epochs": 1})

    assert "No encoder is trained" in run.messages()


def test_an_encoder_without_layers_is_left_as_it_is_and_told_of(
    tmp_path: Path, encoders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(network: nn.Module) -> Any:
        raise EngineError("invalid_spec", "no layers")

    monkeypatch.setattr("engine.models.recompute.layers_of", none)
    run = Tuning(tmp_path, encoders, tiny_av(tmp_path, rows=24))

    run.go(TOWERS["adapted"], hyper={"gradient_checkpointing": True, "n_epochs": 1})

    assert "'text' has no list of layers" in run.messages()

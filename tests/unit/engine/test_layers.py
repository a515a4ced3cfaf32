"""Layers of a tower: frozen by their number, and learning the slower the deeper they lie."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from domain.errors import EngineError
from engine.models.freeze import depths, freeze_layers
from engine.train.run import Finished
from support.datasets import tiny_av
from support.encoders import IMAGE, TEXT
from support.tuning import Tuning

SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}


def bert() -> BertModel:
    return BertModel(BertConfig(vocab_size=9, **SIZES))


@pytest.fixture
def shapes(tmp_path: Path, encoders: dict[str, Path]) -> Tuning:
    return Tuning(tmp_path, encoders, tiny_av(tmp_path, rows=24))


def test_so_many_layers_and_what_comes_before_them_are_frozen() -> None:
    network = bert()

    freeze_layers(network, 3)

    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {name.split(".")[2] for name in trained if "layer." in name} == {"3"}
    assert not any(name.startswith("embeddings") for name in trained)
    assert any(name.startswith("pooler") for name in trained)


@pytest.mark.parametrize("count", [4, 5])
def test_a_network_of_no_more_layers_is_refused_with_their_number(count: int) -> None:
    with pytest.raises(EngineError, match="4 layers"):
        freeze_layers(bert(), count)


def test_the_depth_of_a_parameter_is_the_number_of_layers_above_its_own() -> None:
    found = depths(bert())

    by_layer = [{d for n, d in found.items() if n.startswith(f"encoder.layer.{k}.")} for k in range(4)]
    assert by_layer == [{3}, {2}, {1}, {0}]
    assert {d for n, d in found.items() if n.startswith("embeddings")} == {4}
    assert {d for n, d in found.items() if n.startswith("pooler")} == {0}


def _deep(shapes: Tuning, folder: Path) -> dict[str, Path]:
    """The tiny text encoder, with four layers that are equal at first."""
    shallow = BertModel.from_pretrained(shapes.encoders[TEXT])
    deep = BertModel(BertConfig.from_pretrained(shapes.encoders[TEXT], num_hidden_layers=4))
    deep.embeddings.load_state_dict(shallow.embeddings.state_dict())
    for layer in deep.encoder.layer:
        layer.load_state_dict(shallow.encoder.layer[0].state_dict())
    for path in shapes.encoders[TEXT].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    deep.save_pretrained(folder)
    return {**shapes.encoders, "tiny/deep": folder}


def _moved(before: nn.Module, after: nn.Module) -> float:
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def test_with_layer_decay_each_layer_moves_less_than_the_one_above_it(shapes: Tuning, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    shapes.encoders = _deep(shapes, tmp_path / "deep")
    tower: dict[str, Any] = {"encoder": "tiny/deep", "freeze": False, "lr": 1e-3, "layer_decay": 0.5}

    ending = shapes.go({"text": tower}, hyper={"n_epochs": 1, "weight_decay": 0.0})

    assert isinstance(ending, Finished)
    model, fresh = shapes.model(), BertModel.from_pretrained(tmp_path / "deep")
    trained = model.encoder("text").network
    moved = [_moved(fresh.encoder.layer[k], trained.get_submodule(f"encoder.layer.{k}")) for k in range(4)]
    # AdamW's first steps are as long as the rate, whatever the gradients are.
    ratios = [high / low for low, high in pairwise(moved)]
    assert ratios == pytest.approx([2, 2, 2], rel=0.3)
    assert 0 < _moved(fresh.embeddings, trained.get_submodule("embeddings")) < 0.8 * moved[0]


@pytest.mark.parametrize("schedule", ["cosine", pytest.param("linear", marks=pytest.mark.slow)])
def test_a_run_with_layer_decay_goes_on_exactly(shapes: Tuning, schedule: str) -> None:
    towers = {
        "image": {"encoder": IMAGE, "freeze_layers": 12, "layer_decay": 0.8, "lr": 1e-3},
        "text": {"encoder": TEXT},
    }

    shapes.resumes_exactly(towers, hyper={"lr_scheduler_type": schedule})

    assert shapes.losses("lr")[-1] < 0.5 * max(shapes.losses("lr"))


def test_an_encoder_without_layers_has_no_layer_decay(
    shapes: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(network: nn.Module) -> Any:
        raise EngineError("invalid_spec", "no layers")

    monkeypatch.setattr("engine.models.build.layers_of", none)

    with pytest.raises(EngineError) as refused:
        shapes.go({"text": {"encoder": TEXT, "freeze": False, "layer_decay": 0.9}})

    assert refused.value.param == "multimodal.towers.text"


@pytest.mark.slow
def test_a_decay_of_one_is_none(shapes: Tuning) -> None:
    told = {"encoder": TEXT, "freeze": False, "lr": 1e-3}
    shapes.go({"text": told}, "plain")
    plain = shapes.losses()

    shapes.go({"text": {**told, "layer_decay": 1.0}}, "decayed")

    assert torch.tensor(shapes.losses()).equal(torch.tensor(plain))

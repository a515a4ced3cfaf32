"""A tower with lora in a whole training: what is learned, kept, loaded and gone on with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import MobileNetV2Config, MobileNetV2Model, ResNetConfig, ResNetModel

from domain.errors import EngineError
from domain.towers import Lora
from engine.infer import load
from engine.models.lora import add_lora
from engine.models.multimodal import Multimodal
from engine.train.run import Finished
from support import features
from support.datasets import tiny_av
from support.encoders import IMAGE, TEXT
from support.tuning import Tuning, words

LORA = {"r": 4, "alpha": 8}
ADAPTED: dict[str, Any] = {
    "image": {"encoder": IMAGE, "lora": LORA},
    "text": {"encoder": TEXT, "lora": {**LORA, "dropout": 0.2}},
}


@pytest.fixture
def shapes(tmp_path: Path, encoders: dict[str, Path]) -> Tuning:
    return Tuning(tmp_path, encoders, tiny_av(tmp_path, rows=24))


def test_adapters_learn_what_a_frozen_encoders_features_do_not_tell(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    run = Tuning(tmp_path, encoders, words(tmp_path / "words.csv", 160, lambda word: word[3]))
    hyper = {"n_epochs": 12, "batch_size": 16}
    reached = {}
    for name, lora in {"frozen": {}, "adapted": {"lora": {"r": 8}, "lr": 0.02}}.items():
        ending = run.go({"text": {"encoder": TEXT, **lora}}, name, hyper=hyper)
        assert isinstance(ending, Finished)
        reached[name] = ending.metrics["valid_accuracy"]

    assert reached["frozen"] < 0.8
    assert reached["adapted"] == 1.0


def test_a_model_folder_holds_the_adapters_alone_and_answers_as_it_was_trained(shapes: Tuning) -> None:
    ending = shapes.go(ADAPTED)

    assert isinstance(ending, Finished)
    kept = load_file(shapes.folder / "out/model/model.safetensors")
    of_towers = [name for name in kept if name.startswith("encoders.")]
    assert of_towers
    assert all("lora_A" in name or "lora_B" in name for name in of_towers)
    loaded = dict(shapes.model().trained())
    assert loaded.keys() == kept.keys()
    assert all(torch.equal(loaded[name], kept[name]) for name in kept)
    began = [name for name in kept if "lora_B" in name and ".pooler." not in name]  # as zeros
    assert all(loaded[name].any() for name in began)
    row = {"text": "a red shape"}
    whole, less = (load(shapes.folder / "out/model", encoders=shapes.encoders.__getitem__) for _ in "ab")
    with torch.no_grad():
        for name, parameter in less.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert whole.predict([row])[0] != less.predict([row])[0]


def test_a_run_with_adapters_goes_on_exactly(shapes: Tuning) -> None:
    shapes.resumes_exactly(ADAPTED)


def test_the_rate_of_adapters_is_not_that_of_a_whole_encoder(shapes: Tuning) -> None:
    towers = {"image": {"encoder": IMAGE, "freeze": False}, "text": ADAPTED["text"]}

    ending = shapes.go(towers, hyper={"n_epochs": 1})

    assert isinstance(ending, Finished)
    assert ending.resolved["towers"]["text"]["lr"] == 50 * ending.resolved["towers"]["image"]["lr"]


def test_adapters_drop_out_in_training_and_what_they_adapt_does_not() -> None:
    inner = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 6))
    add_lora(inner, Lora(r=2, dropout=0.5))
    encoder = nn.Module()
    encoder.network = inner
    fusion = features.network().fusion
    model = Multimodal({"left": encoder, "right": nn.Identity()}, frozenset(["right"]), fusion, nn.Identity())

    model.train()
    at_work = {path: m.training for path, m in inner.named_modules() if isinstance(m, nn.Dropout)}
    model.eval()
    resting = [m.training for m in inner.modules()]

    assert at_work == {"0": False, "1.lora_dropout.default": True}
    assert not any(resting)


def _mobilenet() -> nn.Module:
    return MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.1))


def _resnet() -> nn.Module:
    return ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]))


@pytest.mark.parametrize("make", [_mobilenet, _resnet])
def test_a_convolutional_network_has_its_plain_convolutions_adapted(make: Any) -> None:
    torch.manual_seed(0)
    plain, adapted = make().eval(), make().eval()
    adapted.load_state_dict(plain.state_dict())
    pixels = torch.randn(2, 3, 32, 32)
    add_lora(adapted, Lora(r=2))

    before, after = plain(pixels).last_hidden_state, adapted(pixels).last_hidden_state
    after.sum().backward()

    torch.testing.assert_close(before, after, rtol=0, atol=0)
    grouped = [path for path, m in plain.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trained
    assert not any(name.startswith(f"{path}.") for name in trained for path in grouped)
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)


def test_names_without_a_layer_that_can_be_adapted_are_told_those_there_are(shapes: Tuning) -> None:
    towers = {"text": {"encoder": TEXT, "lora": {"target_modules": ["q_proj"]}}}

    with pytest.raises(EngineError, match=r"named q_proj .*query") as refused:
        shapes.go(towers)

    assert (refused.value.code, refused.value.param) == ("invalid_spec", "multimodal.towers.text")

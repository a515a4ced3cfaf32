"""A share of an encoder's layers is frozen, whatever kind of network it is."""

from collections.abc import Callable

import pytest
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    MobileNetV2Config,
    MobileNetV2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperModel,
)

from domain.errors import EngineError
from engine.models.freeze import freeze_share

SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}


def _whisper() -> nn.Module:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    layers = {"encoder_layers": 4, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    return WhisperModel(WhisperConfig(d_model=16, vocab_size=8, **ids, **layers, **heads)).get_encoder()


def _resnet() -> nn.Module:
    return ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]))


def _wav2vec2() -> nn.Module:
    convolutions = {"conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3)}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    return Wav2Vec2Model(Wav2Vec2Config(**SIZES, **convolutions, **positions))


#: The network, its layers in order, something before them and something after them.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, int, str, str]] = {
    "bert": (
        lambda: BertModel(BertConfig(vocab_size=9, **SIZES)),
        "encoder.layer",
        4,
        "embeddings",
        "pooler",
    ),
    "vit": (lambda: ViTModel(ViTConfig(**SIZES)), "layers", 4, "embeddings", "layernorm"),
    "clip": (
        lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES)),
        "encoder.layers",
        4,
        "embeddings",
        "post_layernorm",
    ),
    "whisper": (_whisper, "layers", 4, "conv1", "layer_norm"),
    "mobilenet": (
        lambda: MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.1)),
        "layer",
        16,
        "conv_stem",
        "conv_1x1",
    ),
    "resnet": (_resnet, "encoder.stages", 4, "embedder", ""),
    "wav2vec2": (_wav2vec2, "encoder.layers", 4, "feature_extractor", ""),
}


def _trained(module: nn.Module) -> set[bool]:
    return {p.requires_grad for p in module.parameters()}


@pytest.mark.parametrize("kind", NETWORKS)
def test_half_an_encoder_is_frozen_from_the_input_on(kind: str) -> None:
    make, path, count, before, after = NETWORKS[kind]
    network = make()
    layers = list(network.get_submodule(path).children())

    freeze_share(network, 0.5)

    assert len(layers) == count
    assert [_trained(layer) for layer in layers] == [{False}] * (count // 2) + [{True}] * (count // 2)
    assert _trained(network.get_submodule(before)) == {False}
    assert not after or _trained(network.get_submodule(after)) == {True}


@pytest.mark.parametrize(
    ("share", "frozen"), [(0.0, 0), (0.01, 1), (0.24, 1), (0.25, 2), (0.75, 4), (1.0, 5)]
)
def test_a_share_is_rounded_down_to_whole_layers_and_takes_the_embeddings_along(
    share: float, frozen: int
) -> None:
    network = nn.Module()
    network.stem = nn.Linear(2, 2)
    network.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(4))

    freeze_share(network, share)

    parts = [network.stem, *network.blocks]
    assert [_trained(part) for part in parts] == [{False}] * frozen + [{True}] * (5 - frozen)


def test_a_network_without_layers_is_refused_in_words() -> None:
    with pytest.raises(EngineError, match="true or false"):
        freeze_share(nn.Linear(2, 2), 0.5)

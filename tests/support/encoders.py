"""Tiny real encoders with random weights, saved as folders in Hugging Face's format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    MobileNetV2Config,
    MobileNetV2Model,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
    TimesformerConfig,
    TimesformerModel,
    VideoMAEConfig,
    VideoMAEModel,
    ViTConfig,
    ViTModel,
    VivitConfig,
    VivitImageProcessor,
    VivitModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.utils import logging

#: Every spec of a test may name these ids.
TEXT, IMAGE, AUDIO, VIT = "tiny/bert", "tiny/mobilenet", "tiny/whisper", "tiny/vit"
RESNET = "tiny/resnet"
#: They read four frames of a film at once.
VIDEOMAE, TIMESFORMER, VIVIT = "tiny/videomae", "tiny/timesformer", "tiny/vivit"

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"


def tiny_encoders(folder: Path) -> dict[str, Path]:
    """Builds all of them under `folder`: id -> folder. Equal in every run."""
    logging.disable_progress_bar()
    makers: dict[str, Callable[[Path], None]] = {TEXT: _bert, IMAGE: _mobilenet, AUDIO: _whisper, VIT: _vit}
    makers |= {VIDEOMAE: _videomae, TIMESFORMER: _timesformer, VIVIT: _vivit, RESNET: _resnet}
    made = {}
    for name, make in makers.items():
        made[name] = folder / name
        made[name].mkdir(parents=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            make(made[name])
    return made


def _save(model: Any, folder: Path) -> None:
    model.eval().save_pretrained(folder)


def _bert(folder: Path) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_LETTERS]
    ids = {token: place for place, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **sizes)
    _save(BertModel(config), folder)


def _mobilenet(folder: Path) -> None:
    _save(MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.1, image_size=32)), folder)
    MobileNetV2ImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)


def _vit(folder: Path) -> None:
    """Without a pooler, as many published ones are."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    _save(ViTModel(ViTConfig(image_size=32, patch_size=16, **sizes), add_pooling_layer=False), folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)


def _resnet(folder: Path) -> None:
    sizes = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
    _save(ResNetModel(ResNetConfig(**sizes)), folder)
    ConvNextImageProcessorPil(size={"shortest_edge": 32}).save_pretrained(folder)


_FILM = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "num_frames": 4,
}


def _videomae(folder: Path) -> None:
    _save(VideoMAEModel(VideoMAEConfig(patch_size=16, tubelet_size=2, **_FILM)), folder)
    _frames_of_32(folder)


def _timesformer(folder: Path) -> None:
    model = TimesformerModel(TimesformerConfig(patch_size=16, **_FILM))
    for parameter in model.parameters():
        # Before training, time is the one thing that it does not see: those weights begin as zeros.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    _save(model, folder)
    _frames_of_32(folder)


def _frames_of_32(folder: Path) -> None:
    VideoMAEImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)


def _vivit(folder: Path) -> None:
    """Without a pooler, as a classifier's folder is."""
    _save(VivitModel(VivitConfig(tubelet_size=[2, 16, 16], **_FILM), add_pooling_layer=False), folder)
    VivitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )


def _whisper(folder: Path) -> None:
    sizes = {f"{side}_{word}": n for side in ("encoder", "decoder") for word, n in _WHISPER_SIZES.items()}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(
        d_model=16,
        vocab_size=8,
        num_mel_bins=80,
        max_source_positions=1500,
        max_target_positions=8,
        **ids,
        **sizes,
    )
    _save(WhisperModel(config), folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)


_WHISPER_SIZES = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}

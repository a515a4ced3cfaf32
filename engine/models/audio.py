"""Audio encoders: Whisper's encoder cut to the clip's length, image encoders over spectrograms, and others as they come."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import AutoFeatureExtractor
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from domain.errors import EngineError
from domain.towers import Tower
from engine.data.lengths import DEFAULT_MAX_SECONDS
from engine.models import spectrograms
from engine.models.parts import Parts
from engine.models.pretrained import mean_behind, mean_of_first, open_config, open_network, open_processor
from engine.models.tokens import of_all, of_mask


def open_parts(folder: Path, tower: Tower) -> Parts:
    if _sees(folder):
        return spectrograms.open_parts(folder, tower)
    whole, _ = open_network(folder)
    network: Any = getattr(whole, "audio_model", whole)
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    extractor = open_processor(AutoFeatureExtractor, folder)
    if hasattr(network, "embed_positions") and hasattr(network.config, "max_source_positions"):
        return _windowed(network, extractor, tower.max_seconds)
    return _free(network, extractor, tower.max_seconds or DEFAULT_MAX_SECONDS)


def _sees(folder: Path) -> bool:
    """An image encoder: one of the families that have image processors, and nothing that hears."""
    family = open_config(folder).model_type
    return family in IMAGE_PROCESSOR_MAPPING_NAMES and family not in FEATURE_EXTRACTOR_MAPPING_NAMES


def _windowed(network: Any, extractor: Any, max_seconds: float | None) -> Parts:
    """Whisper reads a window of fixed length: its table of positions is cut to `max_seconds`."""
    stride = network.conv1.stride[0] * network.conv2.stride[0]
    step = extractor.hop_length * stride  # samples that one position stands for
    whole = network.config.max_source_positions
    positions = whole if max_seconds is None else math.ceil(max_seconds * extractor.sampling_rate / step)
    if positions > whole:
        most = whole * step / extractor.sampling_rate
        raise EngineError("invalid_spec", f"max_seconds {max_seconds}: this encoder hears at most {most:g} s")
    _cut_positions(network, positions)

    def prepare(sounds: Sequence[np.ndarray]) -> Mapping[str, Tensor]:
        return extractor(
            list(sounds),
            sampling_rate=extractor.sampling_rate,
            padding="max_length",
            max_length=positions * step,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )

    mean = mean_behind(extractor)

    def embed(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        hidden = network(inputs["input_features"]).last_hidden_state
        return mean(hidden, inputs["attention_mask"][:, ::stride])

    def tokens(network: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        hidden = network(inputs["input_features"]).last_hidden_state
        return of_mask(hidden, inputs["attention_mask"][:, ::stride])

    seconds = positions * step / extractor.sampling_rate
    return _parts(network, prepare, embed, tokens, extractor, seconds)


def _cut_positions(network: Any, positions: int) -> None:
    table = network.embed_positions.weight[:positions].detach().clone()
    network.embed_positions = nn.Embedding.from_pretrained(table, freeze=True)
    network.max_source_positions = network.config.max_source_positions = positions


def _free(network: Any, extractor: Any, seconds: float) -> Parts:
    """Encoders that take any length (wav2vec 2.0, HuBERT), or that pad by their own rule (AST)."""
    name = extractor.model_input_names[0]
    waves = name == "input_values" and hasattr(network, "_get_feature_vector_attention_mask")
    options = {"padding": True, "return_attention_mask": True} if waves else {}

    def prepare(sounds: Sequence[np.ndarray]) -> Mapping[str, Tensor]:
        made = extractor(list(sounds), sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)
        return {key: made[key] for key in (name, "attention_mask") if key in made}

    def heard(network: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of waves: [rows, length, width], and which positions are no padding."""
        mask = inputs["attention_mask"]
        # Models trained without a mask must not see one; their mean still skips the padding.
        seen = mask if extractor.return_attention_mask else None
        hidden = network(inputs[name], attention_mask=seen).last_hidden_state
        # That mask is made of lengths, whichever side was padded.
        return hidden, network._get_feature_vector_attention_mask(hidden.shape[1], mask)

    def embed(network: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        if not waves:
            return network(inputs[name]).last_hidden_state.flatten(2).mean(1)
        return mean_of_first(*heard(network, inputs))

    def tokens(network: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return of_mask(*heard(network, inputs)) if waves else of_all(network(inputs[name]).last_hidden_state)

    return _parts(network, prepare, embed, tokens, extractor, seconds)


def _parts(network: Any, prepare: Any, embed: Any, tokens: Any, extractor: Any, seconds: float) -> Parts:
    rate = int(extractor.sampling_rate)
    silence = np.zeros(rate, dtype=np.float32)
    return Parts(
        network,
        prepare,
        embed,
        {"max_seconds": seconds},
        silence,
        tokens=tokens,
        sampling_rate=rate,
        max_seconds=seconds,
    )

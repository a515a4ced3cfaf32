"""A CTranslate2 Whisper model as a Hugging Face folder."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

#: CTranslate2's numbers for element types (`include/ctranslate2/types.h`).
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
Variables = dict[str, NDArray[Any]]


def convert(folder: Path, out: Path) -> None:
    """Writes the whole model (encoder and decoder) with its feature extractor and tokenizer to `out`."""
    variables = read(folder.joinpath("model.bin").read_bytes())
    config = _config(variables)
    model = WhisperForConditionalGeneration(config)
    missing, unexpected = model.load_state_dict(_state(variables), strict=False)
    if unexpected or set(missing) - {"proj_out.weight"}:
        raise ValueError(f"not a Whisper model: missing {missing}, unexpected {unexpected}")
    model.save_pretrained(out)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(out)
    WhisperTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).save_pretrained(out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from("<" + kind, self.data, self.at)
        self.at += struct.calcsize("<" + kind)
        return int(value)

    def string(self) -> str:
        length = self.number("H")
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw.rstrip(b"\0").decode()

    def array(self) -> NDArray[Any]:
        shape = [self.number("I") for _ in range(self.number("B"))]
        kind = np.dtype(_TYPES[self.number("B")])
        size = self.number("I")
        found = np.frombuffer(self.data, kind, size // kind.itemsize, self.at).reshape(shape)
        self.at += size
        return found


def read(data: bytes) -> Variables:
    """The variables of a CTranslate2 `model.bin`, aliases resolved."""
    reader = _Reader(data)
    reader.number("I"), reader.string(), reader.number("I")
    variables: Variables = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        variables[name] = reader.array()
    if reader.at < len(data):
        for _ in range(reader.number("I")):
            alias = reader.string()
            variables[alias] = variables[reader.string()]
    return variables


def _layers(variables: Variables, part: str) -> int:
    numbers = {name.split("/")[1] for name in variables if name.startswith(f"{part}/layer_")}
    return len(numbers - {"layer_norm"})


def _config(variables: Variables) -> WhisperConfig:
    vocabulary, width = variables["decoder/embeddings/weight"].shape
    heads = int(np.array(variables.get("encoder/num_heads", width // 64)))
    feed_forward = variables["encoder/layer_0/ffn/linear_0/weight"].shape[0]
    first = 50256 if vocabulary == 51864 else 50257  # the English-only vocabulary is one token shorter
    return WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        d_model=width,
        encoder_layers=_layers(variables, "encoder"),
        decoder_layers=_layers(variables, "decoder"),
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=feed_forward,
        decoder_ffn_dim=feed_forward,
        max_source_positions=1500,
        max_target_positions=448,
        bos_token_id=first,
        eos_token_id=first,
        pad_token_id=first,
        decoder_start_token_id=first + 1,
        suppress_tokens=None,
        begin_suppress_tokens=[220, first],
    )


class _State:
    """A Hugging Face state dict that grows from CTranslate2 variables."""

    def __init__(self, variables: Variables) -> None:
        self._from, self.tensors = variables, dict[str, Tensor]()

    def get(self, name: str) -> Tensor:
        return torch.from_numpy(self._from[name].astype(np.float32))

    def norm(self, to: str, source: str) -> None:
        self.tensors |= {
            f"{to}.weight": self.get(f"{source}/gamma"),
            f"{to}.bias": self.get(f"{source}/beta"),
        }

    def linear(self, to: str, source: str) -> None:
        self.tensors |= {
            f"{to}.weight": self.get(f"{source}/weight"),
            f"{to}.bias": self.get(f"{source}/bias"),
        }

    def split(self, to: str, source: str, names: tuple[str, ...]) -> None:
        """One fused projection as several; Whisper's keys have no bias."""
        weights = self.get(f"{source}/weight").chunk(len(names))
        biases = self.get(f"{source}/bias").chunk(len(names))
        for name, weight, bias in zip(names, weights, biases, strict=True):
            self.tensors[f"{to}.{name}.weight"] = weight.clone()
            if name != "k_proj":
                self.tensors[f"{to}.{name}.bias"] = bias.clone()


def _state(variables: Variables) -> dict[str, Tensor]:
    state = _State(variables)
    for conv in ("conv1", "conv2"):
        state.linear(f"model.encoder.{conv}", f"encoder/{conv}")
    for part in ("encoder", "decoder"):
        positions = state.get(f"{part}/position_encodings/encodings")
        state.tensors[f"model.{part}.embed_positions.weight"] = positions
        state.norm(f"model.{part}.layer_norm", f"{part}/layer_norm")
        for i in range(_layers(variables, part)):
            _layer(state, f"model.{part}.layers.{i}", f"{part}/layer_{i}", crosses=part == "decoder")
    embedding = state.get("decoder/embeddings/weight")
    state.tensors |= {"model.decoder.embed_tokens.weight": embedding, "proj_out.weight": embedding}
    return state.tensors


def _layer(state: _State, to: str, source: str, *, crosses: bool) -> None:
    state.norm(f"{to}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
    state.split(f"{to}.self_attn", f"{source}/self_attention/linear_0", ("q_proj", "k_proj", "v_proj"))
    state.linear(f"{to}.self_attn.out_proj", f"{source}/self_attention/linear_1")
    if crosses:
        state.norm(f"{to}.encoder_attn_layer_norm", f"{source}/attention/layer_norm")
        state.linear(f"{to}.encoder_attn.q_proj", f"{source}/attention/linear_0")
        state.split(f"{to}.encoder_attn", f"{source}/attention/linear_1", ("k_proj", "v_proj"))
        state.linear(f"{to}.encoder_attn.out_proj", f"{source}/attention/linear_2")
    state.norm(f"{to}.final_layer_norm", f"{source}/ffn/layer_norm")
    state.linear(f"{to}.fc1", f"{source}/ffn/linear_0")
    state.linear(f"{to}.fc2", f"{source}/ffn/linear_1")

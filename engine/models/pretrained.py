"""Opens a model folder in Hugging Face's format: safetensors only, no foreign code. Knows no modality."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.utils import logging as chatter

from domain.errors import EngineError
from kernels import masked_token_pool

#: Never the Hub (its mirror is another's work), never a repository's own code.
LOCAL = {"local_files_only": True, "trust_remote_code": False}

_READ_BYTES = 1 << 22
_WEIGHTS = "*.safetensors"
#: What decides how a value is read and what the network is; read-me files and notes do not.
_DESCRIPTIONS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
)


def open_config(folder: Path) -> Any:
    with _trouble(folder):
        return AutoConfig.from_pretrained(folder, **LOCAL)


def open_network(folder: Path) -> tuple[nn.Module, set[str]]:
    """The bare network in fp32 and the names of weights that the folder lacks (a pooler, at most)."""
    if not list(folder.glob(_WEIGHTS)):
        raise EngineError("encoder_unusable", f"{folder} holds no weights in safetensors format")
    with _trouble(folder), _quiet():
        model, found = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **LOCAL
        )
    missing = set(found["missing_keys"])
    strange = sorted(name for name in missing if "pooler" not in name)
    if strange or found["mismatched_keys"]:
        raise EngineError("encoder_unusable", f"{folder} lacks weights, among them {strange[:3]}")
    return model, missing


def open_language_model(folder: Path) -> Any:
    """A causal language model in fp32, its head included."""
    if not list(folder.glob(_WEIGHTS)):
        raise EngineError("encoder_unusable", f"{folder} holds no weights in safetensors format")
    with _trouble(folder), _quiet():
        both: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **LOCAL
        )
    model, found = both
    if found["missing_keys"] or found["mismatched_keys"]:
        strange = sorted(found["missing_keys"])[:3]
        raise EngineError(
            "encoder_unusable", f"{folder} lacks weights of a language model, among them {strange}"
        )
    return model


def open_processor(kind: Any, folder: Path, **options: Any) -> Any:
    """A tokenizer, image processor or feature extractor; `kind` is its Auto class."""
    with _trouble(folder), _quiet():
        return kind.from_pretrained(folder, **LOCAL, **options)


def fingerprint(folder: Path, options: Mapping[str, Any]) -> str:
    """Names the function from a value to its vector: weights, descriptions and reading options."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for path in sorted(p for pattern in (_WEIGHTS, *_DESCRIPTIONS) for p in folder.glob(pattern)):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    return digest.hexdigest()


#: The mean over real positions. hidden [rows, length, width], mask [rows, length] -> [rows, width].
Mean = Callable[[Tensor, Tensor], Tensor]


def mean_behind(padder: Any) -> Mean:
    """The mean that suits what a tokenizer or feature extractor pads: faster if the padding lies on the right."""
    return mean_of_first if padder.padding_side == "right" else masked_mean


def mean_of_first(hidden: Tensor, mask: Tensor) -> Tensor:
    """`masked_mean` for a mask that is true first and false behind; the padding is not even read."""
    return masked_token_pool(hidden, mask.sum(1))


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """A `Mean` for any mask."""
    weight = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


@contextmanager
def _trouble(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise EngineError("encoder_unusable", f"{folder} cannot be loaded: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading reports unused heads and draws bars; what matters of that is checked here."""
    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()

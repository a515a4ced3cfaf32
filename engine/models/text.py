"""Text encoders: tokens, and the mean of their vectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoTokenizer

from domain.errors import EngineError
from domain.towers import Tower
from engine.data.lengths import DEFAULT_MAX_LENGTH
from engine.models.parts import Parts
from engine.models.pretrained import mean_behind, open_network, open_processor
from engine.models.tokens import of_mask


def open_parts(folder: Path, tower: Tower) -> Parts:
    whole, _ = open_network(folder)
    network = _text_side(whole)
    tokenizer = open_processor(AutoTokenizer, folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    length = _max_length(tower.max_length, tokenizer, network.config)

    def prepare(texts: Sequence[str]) -> Mapping[str, Tensor]:
        # Some tokenizers make nothing of an empty text, and a row needs at least one token.
        return tokenizer(
            [text or " " for text in texts],
            padding=True,
            truncation=True,
            max_length=length,
            return_attention_mask=True,
            return_tensors="pt",
        )

    mean = mean_behind(tokenizer)

    def embed(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        mask = inputs["attention_mask"]
        return mean(network(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state, mask)

    def tokens(network: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        mask = inputs["attention_mask"]
        return of_mask(network(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state, mask)

    return Parts(network, prepare, embed, {"max_length": length}, example="a", tokens=tokens)


def _text_side(model: Any) -> Any:
    """Of a two-sided model (CLIP) the text side, of a sequence-to-sequence one (T5) the encoder."""
    model = getattr(model, "text_model", model)
    return model.get_encoder() if model.config.is_encoder_decoder else model


def _max_length(asked: int | None, tokenizer: Any, config: Any) -> int:
    limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    limit = min(value for value in (*limits, 1 << 30) if value is not None)
    if asked is not None and asked > limit:
        raise EngineError("invalid_spec", f"max_length {asked}: this encoder reads at most {limit} tokens")
    return asked or min(limit, DEFAULT_MAX_LENGTH)

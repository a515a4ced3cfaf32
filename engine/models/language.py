"""A causal language model with its tokenizer: what of it is trained, and how texts become its tokens."""

import inspect
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import AutoTokenizer

from domain.errors import EngineError
from domain.language import LanguageModel as Spec
from engine.models.freeze import freeze_share
from engine.models.lora import add_lora
from engine.models.pretrained import fingerprint, open_language_model, open_processor

#: Stands in a rendered template where the user's words come.
_MARK = "plait-content-7f3a"


@dataclass(frozen=True)
class Words:
    """A tokenizer, and what its chat template writes around a user's words."""

    tokenizer: Any
    #: Of the same vocabulary, for which `<|im_end|>` in a user's text is seven letters and no end of a turn.
    plain: Any
    before: list[int]
    #: Ends where the answer begins.
    after: list[int]
    end: int

    def of_text(self, text: str, most: int) -> list[int]:
        """The first `most` tokens of what a user wrote."""
        ids: list[int] = self.plain.encode(text, add_special_tokens=False).ids
        return ids[:most]

    def of_answer(self, text: str, most: int) -> list[int]:
        """As it is to be written: its first tokens, at most `most` with the end behind them."""
        return [*self.of_text(text, most - 1), self.end]

    def said(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


class Language(nn.Module):
    """The network and its words. Its weights are frozen, or have adapters, as `Spec` says."""

    def __init__(self, network: Any, words: Words, fingerprint: str) -> None:
        super().__init__()
        self.network, self.words, self.fingerprint = network, words, fingerprint
        embeddings = network.get_input_embeddings()
        self.width: int = embeddings.weight.shape[1]
        #: What the entries of a word's vector are like.
        self.scale = float(embeddings.weight.detach().float().pow(2).mean().sqrt())
        self._keeps_logits = "logits_to_keep" in inspect.signature(network.forward).parameters

    @property
    def longest(self) -> int | None:
        """Tokens of a whole conversation, if the network has a limit."""
        return getattr(self.network.config.get_text_config(), "max_position_embeddings", None)

    @property
    def is_trained(self) -> bool:
        return any(p.requires_grad for p in self.network.parameters())

    def embed(self, ids: Tensor) -> Tensor:
        """[..., width]"""
        vectors: Tensor = self.network.get_input_embeddings()(ids)
        return vectors

    def logits(self, embedded: Tensor, mask: Tensor, last: int) -> Tensor:
        """[rows, last, vocabulary]: what comes behind each of the last `last` places. mask [rows, length]"""
        kept = {"logits_to_keep": last} if self._keeps_logits else {}
        out = self.network(inputs_embeds=embedded, attention_mask=mask.long(), use_cache=False, **kept)
        logits: Tensor = out.logits[:, -last:]
        return logits

    def step(self, embedded: Tensor, past: Any) -> tuple[Tensor, Any]:
        """[rows, vocabulary] of the next token, and what the following step goes on from. No row is padded."""
        kept = {"logits_to_keep": 1} if self._keeps_logits else {}
        out = self.network(inputs_embeds=embedded, past_key_values=past, use_cache=True, **kept)
        return out.logits[:, -1].float(), out.past_key_values


def open_language(folder: Path, spec: Spec) -> Language:
    """`spec` has what is trained decided. Raises EngineError: `encoder_unusable`, `invalid_spec`."""
    network = open_language_model(folder)
    words = _words(folder)
    if spec.lora is not None:
        network.requires_grad_(False)
        # The head is left alone: its weights are often the embeddings', too.
        add_lora(getattr(network, network.base_model_prefix), spec.lora)
    else:
        freeze_share(network, spec.frozen_share)
    # Whatever changes what is written, beside the files that every fingerprint is made of.
    options = {"kind": "language_model", "chat_template": words.tokenizer.chat_template}
    return Language(network, words, fingerprint(folder, options)).eval()


def _words(folder: Path) -> Words:
    tokenizer = open_processor(AutoTokenizer, folder)
    if not tokenizer.is_fast:
        raise EngineError("encoder_unusable", f"{folder} has no tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise EngineError("encoder_unusable", f"{folder}: its tokenizer has no token that ends an answer")
    plain = deepcopy(tokenizer.backend_tokenizer)
    plain.encode_special_tokens = True
    plain.no_truncation()
    plain.no_padding()
    before, after = _around(tokenizer, folder)
    return Words(tokenizer, plain, before, after, tokenizer.eos_token_id)


def _around(tokenizer: Any, folder: Path) -> tuple[list[int], list[int]]:
    """What stands before a user's words and between them and the answer, as tokens."""
    if tokenizer.chat_template is None:
        # A base model has seen no turns: a line each will do.
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        return bos, tokenizer("\n", add_special_tokens=False).input_ids
    try:
        asked = [{"role": "user", "content": _MARK}]
        rendered = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError) as error:
        raise EngineError("encoder_unusable", f"{folder}: its chat template fails: {error}") from error
    if rendered.count(_MARK) != 1:
        raise EngineError("encoder_unusable", f"{folder}: its chat template leaves out what the user says")
    return tuple(tokenizer(part, add_special_tokens=False).input_ids for part in rendered.split(_MARK))


def rows_of(ids: list[Tensor], fill: int) -> Tensor:
    """[rows, longest], padded on the right."""
    return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=fill)

"""A tiny causal language model with random weights and a tokenizer of some words, as a folder; pictures to ask about."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from support.datasets import png, shape, zip_of

#: Every spec of a test may name it.
LANGUAGE = "tiny/llama"

COLOURS = ("red", "green", "blue", "yellow")
CORNERS = ("three", "four", "five", "six")
_WORDS = "what which colour is it how many corners has it a with shape ? : question note hint image take"
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} {{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def tiny_language_model(folder: Path, *, width: int = 32) -> Path:
    """Words it does not know are spelled letter by letter. Equal in every run."""
    logging.disable_progress_bar()
    folder.mkdir(parents=True)
    special = ["<unk>", "<|im_start|>", "<|im_end|>"]
    letters = [chr(code) for code in range(32, 127)]
    vocabulary = list(
        dict.fromkeys([*special, *letters, "\n", "user", "assistant", *_WORDS.split(), *COLOURS, *CORNERS])
    )
    tokenizer = Tokenizer(
        models.WordPiece({word: n for n, word in enumerate(_pieces(vocabulary))}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=_TEMPLATE,
    )
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


def _pieces(vocabulary: list[str]) -> list[str]:
    """With every letter as it stands inside of a word, too."""
    inside = [f"##{chr(code)}" for code in range(33, 127)]
    return [*vocabulary, *inside]


def asked_pictures(folder: Path, *, rows: int = 96, missing: float = 0.0, px: int = 32) -> Path:
    """`asked.zip`: image, question, and the answer as label. Colour and corners are told by the picture alone."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    media = {}
    for n in range(rows):
        # The colour belongs to the number of corners.
        kind, asks_colour = n % 4, n // 4 % 2 == 0
        name = f"images/{n}.png"
        if rng.random() >= missing:
            media[name] = png(shape(kind, px, rng))
        lines.append(
            {
                "image_file_name": name if name in media else None,
                "question": "what colour is it ?" if asks_colour else "how many corners has it ?",
                "label": (COLOURS if asks_colour else CORNERS)[kind],
                "split": ("train", "train", "train", "validation", "test")[n // 8 % 5],
            }
        )
    return zip_of(folder / "asked.zip", lines, media)

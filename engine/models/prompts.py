"""A row as the language model reads it: its texts as tokens, and places for what it sees. Knows no network."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.data.manifest import Several
from engine.models.language import Words, rows_of

#: The name of prompts among a batch's inputs; no column is named so.
PROMPT = ""


@dataclass(frozen=True)
class Prompter:
    """`slots` are the columns that are seen, in the network's order, and how many tokens each takes; `read` are those
    that are read as text.
    """

    words: Words
    slots: Mapping[str, int]
    read: Sequence[str]
    max_length: int

    @property
    def longest(self) -> int:
        """Tokens of a prompt, at most, apart from the names of several columns."""
        around = len(self.words.before) + len(self.words.after)
        return around + sum(self.slots.values()) + max(1, len(self.read)) * (self.max_length + 32)

    def ids(self, values: Mapping[str, Any]) -> list[int]:
        """The prompt of a row with such texts. The place of the n-th column that is seen is -n - 1, for each token.

        A column's name in angle brackets says where in a text it belongs; what no text names comes first.
        """
        texts = self._texts(values)
        placed: set[str] = set()
        content: list[int] = []
        for text in texts:
            content += self.words.of_text("\n", 2) if content else []
            content += self._text(text, placed)
        first = [place for name in self.slots if name not in placed for place in self._place(name)]
        breaks = self.words.of_text("\n", 2) if first and content else []
        return [*self.words.before, *first, *breaks, *content, *self.words.after]

    def has_text(self, values: Mapping[str, Any]) -> bool:
        return any(values.get(name) is not None for name in self.read)

    def _texts(self, values: Mapping[str, Any]) -> list[str]:
        """One column's text stands for itself; of several each is told by its name."""
        there = {name: _spelled(values[name]) for name in self.read if values.get(name) is not None}
        return list(there.values()) if len(self.read) == 1 else [f"{name}: {t}" for name, t in there.items()]

    def _text(self, text: str, placed: set[str]) -> list[int]:
        ids: list[int] = []
        left = self.max_length
        for part in self._names.split(text):
            name = part[1:-1]
            if self._names.fullmatch(part) and name not in placed:
                placed.add(name)
                ids += self._place(name)
            elif part:
                piece = self.words.of_text(part, left)
                left -= len(piece)
                ids += piece
        return ids

    @property
    def _names(self) -> re.Pattern[str]:
        # One that matches nothing, where nothing is seen.
        names = "|".join(re.escape(name) for name in self.slots) or r"(?!)"
        return re.compile(f"(<(?:{names})>)")

    def _place(self, name: str) -> list[int]:
        return [-1 - list(self.slots).index(name)] * self.slots[name]


def _spelled(value: Any) -> str:
    if isinstance(value, Several):
        return "\n".join(str(part) for part in value.parts)
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Prompts:
    """Prompts with their answers behind them, padded on the right."""

    #: [rows, length]; below 0 where something seen belongs.
    ids: Tensor
    #: [rows, length], bool: False for padding.
    live: Tensor
    #: [rows, length], bool: the tokens of the answer.
    answer: Tensor
    #: [rows], bool: whether it says anything beside what is seen.
    has_text: Tensor

    @classmethod
    def of(cls, prompts: Sequence[Tensor], answers: Sequence[Tensor], has_text: Tensor) -> "Prompts":
        whole = [torch.cat(both).long() for both in zip(prompts, answers, strict=True)]
        lengths = torch.tensor([len(ids) for ids in whole])
        starts = torch.tensor([len(ids) for ids in prompts])
        ids = rows_of(whole, 0)
        places = torch.arange(ids.shape[1])
        live = places < lengths.unsqueeze(1)
        return cls(ids, live, live & (places >= starts.unsqueeze(1)), has_text)

    def to(self, device: torch.device) -> "Prompts":
        return Prompts(*(x.to(device) for x in (self.ids, self.live, self.answer, self.has_text)))

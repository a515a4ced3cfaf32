"""Token by token: what a language model writes behind its prompts. Knows no row and no column."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from engine.models.language import Language

WhyEnded = Literal["stop", "length"]


@dataclass(frozen=True)
class Options:
    """`temperature` 0 takes the likeliest token; above, tokens are drawn by `seed`, for each row as if it stood alone."""

    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    #: Texts before which the answer ends.
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    text: str
    tokens: int
    finish_reason: WhyEnded


class _Row:
    """One answer while it grows."""

    def __init__(self, language: Language, options: Options) -> None:
        self._language, self._options = language, options
        self._ids: list[int] = []
        self._draw = torch.Generator().manual_seed(options.seed)
        self.ended: WhyEnded | None = None
        self.text = ""

    def choose(self, logits: Tensor) -> int:
        """Of [vocabulary], on the CPU."""
        if self._options.temperature == 0:
            return int(logits.argmax())
        likely = (logits / self._options.temperature).softmax(0)
        return int(torch.multinomial(likely, 1, generator=self._draw))

    def add(self, token: int) -> None:
        if token == self._language.words.end:
            self._end("stop")
            return
        self._ids.append(token)
        if self._options.stop and (cut := self._stopped()) is not None:
            self.text, self.ended = cut, "stop"
        elif len(self._ids) == self._options.max_tokens:
            self._end("length")

    def _end(self, why: WhyEnded) -> None:
        self.text, self.ended = self._language.words.said(self._ids), why

    def _stopped(self) -> str | None:
        text = self._language.words.said(self._ids)
        places = [place for word in self._options.stop if (place := text.find(word)) >= 0]
        return text[: min(places)].rstrip() if places else None

    @property
    def written(self) -> Written:
        assert self.ended is not None
        return Written(self.text, len(self._ids), self.ended)


def write(language: Language, embedded: Tensor, options: Options, heed: Callable[[], None]) -> list[Written]:
    """What comes behind each prompt. [rows, length, width], all of one length: none is padded, so none is another's.

    `heed` is called before each token and may raise.
    """
    rows = [_Row(language, options) for _ in range(len(embedded))]
    past: Any = None
    while True:
        heed()
        logits, past = language.step(embedded, past)
        chosen = [language.words.end] * len(rows)
        for place, (row, scores) in enumerate(zip(rows, logits.cpu(), strict=True)):
            if row.ended is None:
                chosen[place] = row.choose(scores)
                row.add(chosen[place])
        if all(row.ended is not None for row in rows):
            return [row.written for row in rows]
        embedded = language.embed(torch.tensor(chosen, device=embedded.device).unsqueeze(1))


def by_length(prompts: Sequence[Tensor], most: int) -> list[list[int]]:
    """The places of prompts of one length, `most` at a time."""
    alike: dict[int, list[int]] = {}
    for place, ids in enumerate(prompts):
        alike.setdefault(len(ids), []).append(place)
    return [places[n : n + most] for places in alike.values() for n in range(0, len(places), most)]

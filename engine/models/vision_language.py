"""A language model that reads texts and, through encoders and projectors, media. Knows no spec."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from engine.models.encoders import Encoder
from engine.models.fusion.base import drop_modalities
from engine.models.language import Language
from engine.models.multimodal import Live, Multimodal
from engine.models.prompts import PROMPT, Prompter, Prompts


class VisionLanguage(Multimodal):
    """Encoders -> projectors -> soft tokens among those of the prompt -> language model.

    `encoders` are those of what is seen. `forward` and `learn` give the logits of all answers' tokens one row after the
    other, [tokens, vocabulary], each after the true ones before it. A missing medium's tokens are one that is learned.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        frozen: frozenset[str],
        language: Language,
        prompter: Prompter,
        modality_dropout: float,
        longest_answer: int,
    ) -> None:
        super().__init__(encoders, frozen, nn.Identity(), nn.Identity())  # type: ignore[arg-type]
        self.language, self.prompter, self.modality_dropout = language, prompter, modality_dropout
        #: In tokens, the end included.
        self.longest_answer = longest_answer
        self.missing = nn.Parameter(torch.randn(len(self.names), language.width) * language.scale)

    def forward(self, inputs: Mapping[str, Tensor | Live], present: Tensor) -> Tensor:
        prompts: Prompts = inputs[PROMPT]  # type: ignore[assignment]
        embedded = self.embedded(prompts.ids, self.soft(inputs, present))
        # The logits of a token stand one place before it.
        wanted = prompts.answer[:, 1:]
        first = int(wanted.any(0).long().argmax()) if wanted.numel() else 0
        last = prompts.ids.shape[1] - first
        logits = self.language.logits(embedded, prompts.live, last)
        return logits[:, :-1][wanted[:, first:]]

    def learn(self, inputs: Mapping[str, Tensor | Live], present: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `forward`, with some media hidden; never all that a row says."""
        prompts: Prompts = inputs[PROMPT]  # type: ignore[assignment]
        if self.training and self.modality_dropout and self.names:
            told = torch.cat([present, prompts.has_text.unsqueeze(1)], dim=1)
            present = drop_modalities(told, self.modality_dropout)[:, :-1]
        return self(inputs, present), None

    def soft(self, inputs: Mapping[str, Tensor | Live], present: Tensor) -> list[Tensor]:
        """Of each column that is seen its soft tokens, [rows, tokens, width]."""
        return self.stood_in([self._pooled(name, inputs[name], len(present)) for name in self.names], present)

    def stood_in(self, pooled: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        """`pooled` are projectors' answers, [rows, tokens * width]; the learned token stands in for what is missing."""
        found = []
        for place, flat in enumerate(pooled):
            tokens = flat.unflatten(1, (-1, self.language.width))
            there = present[:, place].view(-1, 1, 1)
            found.append(torch.where(there, tokens, self.missing[place].to(tokens.dtype)))
        return found

    def embedded(self, ids: Tensor, soft: Sequence[Tensor]) -> Tensor:
        """[rows, length, width]: words' vectors, and soft tokens in their places."""
        embedded = self.language.embed(ids.clamp(min=0))
        for place, tokens in enumerate(soft):
            where = (ids == -1 - place).unsqueeze(2)
            embedded = embedded.masked_scatter(where, tokens.to(embedded.dtype))
        return embedded

    def train(self, mode: bool = True) -> "VisionLanguage":
        super().train(mode)
        if not self.language.is_trained:
            self.language.eval()
        return self

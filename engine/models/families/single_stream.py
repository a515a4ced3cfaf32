"""mm-bert: the tokens of all towers in one sequence, under one transformer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.models.families.attention import self_attention
from engine.models.families.embedding import DROPOUT, LAYERS, TokenFusion, heads_of
from engine.models.fusion.base import wide
from engine.models.tokens import Tokens


class SingleStream(TokenFusion):
    """A [CLS] token and the tokens of all towers through one transformer; [CLS] is what comes out.

    VisualBERT (Li et al. 2019, arXiv:1908.03557) and MMBT (Kiela et al. 2019, arXiv:1909.02950), whose texts go through
    a pretrained BERT too, and there through no other transformer: here any encoder comes first, and this one is new.
    """

    def __init__(
        self,
        widths: Sequence[int],
        dim: int,
        modality_dropout: float,
        streams: Sequence[Sequence[int]],
        layers: int = LAYERS,
        heads: int | None = None,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__(widths, dim, modality_dropout, streams, dropout)
        self.cls = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.layers = self_attention(dim, heads or heads_of(dim), layers, dropout)
        self.pooler = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())

    def forward(self, given: Sequence[Tokens], present: Tensor) -> Tensor:
        hidden, _ = self.contextual(*self.embedding(given, self.as_trained(present)))
        pooled: Tensor = self.pooler(hidden[:, 0])
        return wide(pooled)

    def contextual(self, xs: Sequence[Tensor], live: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """[CLS] and all towers' tokens as they see one another, [rows, 1 + lengths, dim], and which of them count."""
        rows = len(xs[0])
        sequence = torch.cat([self.cls.to(xs[0].dtype).expand(rows, -1, -1), *xs], dim=1)
        counts = torch.cat([live[0].new_ones(rows, 1), *live], dim=1)
        return self.layers(sequence, src_key_padding_mask=~counts), counts

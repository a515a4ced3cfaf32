"""What every fusion over tokens begins with: tokens of all towers in one space, and those that stand in for missing ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.models.fusion.base import Fusion, tokens
from engine.models.pools import sinusoids
from engine.models.tokens import Tokens

#: Of attention, where the spec does not say: what small data can teach from nothing.
LAYERS, DROPOUT = 2, 0.1
#: Entries that a head should have at least, and heads at most.
_HEAD_DIM, _MOST_HEADS = 32, 8


class Embedding(nn.Module):
    """Each tower's tokens, brought to `dim`, and added to them the tower's own vector and the token's position.

    As BERT's embeddings are made (Devlin et al. 2018, arXiv:1810.04805), the towers being its segments; the positions are
    the sinusoids of Vaswani et al. 2017 (arXiv:1706.03762), so that a sequence may be of any length.
    """

    def __init__(self, widths: Sequence[int], dim: int, dropout: float) -> None:
        super().__init__()
        self.dim = dim
        self.towers = nn.ModuleList(nn.Sequential(nn.LayerNorm(w), nn.Linear(w, dim)) for w in widths)
        self.segments = tokens(len(widths), dim)
        self.missing = tokens(len(widths), dim)
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, given: Sequence[Tokens], present: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of each tower [rows, length, dim], and which of them count, [rows, length], bool.

        A row's first so many count, and at least one: where a tower is missing, the token that was learned for that.
        """
        read = [self._tower(place, x, present[:, place]) for place, x in enumerate(given)]
        return [x for x, _ in read], [live for _, live in read]

    def _tower(self, place: int, given: Tokens, present: Tensor) -> tuple[Tensor, Tensor]:
        length = given.values.shape[1]
        there = present & (given.lengths > 0)
        places = torch.arange(length, device=given.device)
        live = (places < given.lengths.unsqueeze(1)) & there.unsqueeze(1)  # [rows, length]
        # What lies elsewhere (NaN, too) reaches neither the output nor a gradient.
        values = torch.where(live.unsqueeze(2), given.values, 0.0)
        positions = sinusoids(length, self.dim + self.dim % 2)[:, : self.dim].to(given.device)
        placed = self.towers[place](values) + positions
        standing_in = (~there).unsqueeze(1) & (places == 0)
        placed = torch.where(standing_in.unsqueeze(2), self.missing[place].to(placed.dtype), placed)
        return self.dropout(self.norm(placed + self.segments[place])), live | standing_in


class TokenFusion(Fusion):
    """`forward(tokens, present)`: `tokens` are the towers' sequences, `present` is [rows, towers], bool; the answer is
    [rows, dim]. `streams` are the places of towers that are read as one sequence."""

    reads_tokens = True

    def __init__(
        self,
        widths: Sequence[int],
        dim: int,
        modality_dropout: float,
        streams: Sequence[Sequence[int]],
        dropout: float,
    ) -> None:
        super().__init__(modality_dropout)
        self.streams = streams
        self.embedding = Embedding(widths, dim, dropout)

    def in_streams(self, given: Sequence[Tokens], present: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """As `Embedding.forward`, of each stream."""
        xs, live = self.embedding(given, self.as_trained(present))
        joined = [torch.cat([xs[i] for i in stream], dim=1) for stream in self.streams]
        return joined, [torch.cat([live[i] for i in stream], dim=1) for stream in self.streams]


def heads_of(dim: int) -> int:
    """As many as divide `dim` into at least 32 entries each, and at most 8."""
    return next((n for n in range(_MOST_HEADS, 1, -1) if dim % n == 0 and dim // n >= _HEAD_DIM), 1)

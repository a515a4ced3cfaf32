"""mult: for each pair of streams a transformer in which one reads the other, and one over what each has read."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from domain.errors import EngineError
from engine.models.families.attention import Reader, self_attention
from engine.models.families.embedding import DROPOUT, LAYERS, TokenFusion, heads_of
from engine.models.fusion.base import wide
from engine.models.tokens import Tokens
from kernels import masked_token_pool

#: Each pair of them has two transformers of its own.
MOST_STREAMS = 8


class CrossModal(TokenFusion):
    """The multimodal transformer (MulT; Tsai et al. 2019, arXiv:1906.00295), of any number of streams up to eight.

    A stream's tokens ask those of one other stream, as they were at first, in each layer; what it made of the others,
    side by side, goes through a transformer of its own, and the mean of that is taken, where the authors take its last
    token: theirs are all as long as one another. With more than two streams a linear layer first brings what lies side by
    side to `dim`. Raises EngineError for more than eight streams.
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
        if len(streams) > MOST_STREAMS:
            message = (
                f"mult takes at most {MOST_STREAMS} columns of text, pictures, sound or film (numbers and categories "
                f"are one together), and there are {len(streams)}; use the family vilbert or mm-bert"
            )
            raise EngineError("invalid_spec", message, param="multimodal.family")
        count, heads = len(streams), heads or heads_of(dim)
        #: From each stream that asks, in turn, to each other one.
        self.across = nn.ModuleList(Reader(dim, heads, layers, dropout) for _ in range(count * (count - 1)))
        self.joined = nn.ModuleList(
            nn.Linear((count - 1) * dim, dim) if count > 2 else nn.Identity() for _ in range(count)
        )
        self.within = nn.ModuleList(self_attention(dim, heads, layers, dropout) for _ in range(count))
        self.out = nn.Sequential(nn.Linear(count * dim, dim), nn.GELU())

    def forward(self, given: Sequence[Tokens], present: Tensor) -> Tensor:
        xs, live = self.in_streams(given, present)
        pooled = [
            masked_token_pool(
                self.within[place](self._heard(place, xs, live), src_key_padding_mask=~live[place]),
                live[place].sum(1),
            )
            for place in range(len(xs))
        ]
        fused: Tensor = self.out(torch.cat(pooled, dim=1))
        return wide(fused)

    def _heard(self, place: int, xs: Sequence[Tensor], live: Sequence[Tensor]) -> Tensor:
        """What a stream has read in all others, [rows, length, dim]; a single one has itself."""
        if len(xs) == 1:
            return xs[0]
        begin, rest = place * (len(xs) - 1), [i for i in range(len(xs)) if i != place]
        told = [self.across[begin + n](xs[place], xs[i], live[i]) for n, i in enumerate(rest)]
        heard: Tensor = self.joined[place](torch.cat(told, dim=2))
        return heard

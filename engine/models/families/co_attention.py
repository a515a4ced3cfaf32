"""vilbert: a stream a column, and layers in which each stream attends to all others."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.models.families.attention import CrossAttention, self_attention_layer
from engine.models.families.embedding import DROPOUT, LAYERS, TokenFusion, heads_of
from engine.models.fusion.base import tokens, wide
from engine.models.tokens import Tokens


class CoAttention(TokenFusion):
    """ViLBERT's co-attentional transformer (Lu et al. 2019, arXiv:1908.02265), of any number of streams.

    Each layer is two, in each stream with weights of its own: one whose queries are the stream's and whose keys and values
    are those of all other streams, and one within the stream. With two streams that is the authors' network. The streams'
    first tokens come out, as [CLS] and [IMG] do there, each through a layer, and their mean (the authors' code adds or
    multiplies them). A single stream has nobody to ask.
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
        heads = heads or heads_of(dim)
        self.firsts = tokens(len(streams), dim)
        self.layers = nn.ModuleList(_Layer(len(streams), dim, heads, dropout) for _ in range(layers))
        self.poolers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU()) for _ in streams
        )

    def forward(self, given: Sequence[Tokens], present: Tensor) -> Tensor:
        xs, live = self._begun(*self.in_streams(given, present))
        for layer in self.layers:
            xs = layer(xs, live)
        pooled = [wide(pooler(x[:, 0])) for pooler, x in zip(self.poolers, xs, strict=True)]
        return torch.stack(pooled).mean(0)

    def _begun(self, xs: list[Tensor], live: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The streams with their first tokens."""
        rows = len(xs[0])
        firsts = [first.to(xs[0].dtype).expand(rows, 1, -1) for first in self.firsts]
        counts = live[0].new_ones(rows, 1)
        begun = [torch.cat([first, x], dim=1) for first, x in zip(firsts, xs, strict=True)]
        return begun, [torch.cat([counts, there], dim=1) for there in live]


class _Layer(nn.Module):
    """Each stream asks all others, and then itself."""

    def __init__(self, streams: int, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.across = nn.ModuleList(
            CrossAttention(dim, heads, dropout) for _ in range(streams if streams > 1 else 0)
        )
        self.within = nn.ModuleList(self_attention_layer(dim, heads, dropout) for _ in range(streams))

    def forward(self, xs: list[Tensor], live: list[Tensor]) -> list[Tensor]:
        if len(xs) > 1:
            # All ask at once: what one has heard in this layer the others hear in the next.
            xs = [
                layer(x, _others(xs, place), _others(live, place))
                for place, (layer, x) in enumerate(zip(self.across, xs, strict=True))
            ]
        return [
            layer(x, src_key_padding_mask=~there)
            for layer, x, there in zip(self.within, xs, live, strict=True)
        ]


def _others(sequences: list[Tensor], place: int) -> Tensor:
    """All sequences but one's, one behind the other. [rows, length, ...] each"""
    return torch.cat([x for other, x in enumerate(sequences) if other != place], dim=1)

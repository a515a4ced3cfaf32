"""Attention within a sequence, and from one sequence to another. Knows no modality."""

from torch import Tensor, nn
from torch.nn import functional


def self_attention_layer(dim: int, heads: int, dropout: float) -> nn.TransformerEncoderLayer:
    """Pre-norm: it learns without a long warm-up. Call it with `src_key_padding_mask`."""
    return nn.TransformerEncoderLayer(
        dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
    )


def self_attention(dim: int, heads: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    """Such layers, and a norm behind them."""
    layer = self_attention_layer(dim, heads, dropout)
    # Nested tensors do not go together with norms that come first.
    return nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False)


class CrossAttention(nn.Module):
    """A pre-norm transformer layer whose keys and values are another sequence's."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.norm_asking, self.norm_asked = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value, self.out = (
            nn.Linear(dim, dim),
            nn.Linear(dim, 2 * dim),
            nn.Linear(dim, dim),
        )
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 4 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, asking: Tensor, asked: Tensor, live: Tensor) -> Tensor:
        """asking [rows, length, dim], asked [rows, others, dim], and which of these count, [rows, others], bool; at
        least one does."""
        key, value = self.key_value(self.norm_asked(asked)).chunk(2, dim=2)
        heard = functional.scaled_dot_product_attention(
            self._split(self.query(self.norm_asking(asking))),
            self._split(key),
            self._split(value),
            attn_mask=live[:, None, None, :],
            dropout_p=self.rate if self.training else 0.0,
        )
        asking = asking + self.dropout(self.out(heard.transpose(1, 2).flatten(2)))
        answer: Tensor = asking + self.feed_forward(asking)
        return answer

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Reader(nn.Module):
    """A transformer in which a sequence asks another one, in each layer as that was at first."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossAttention(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, asking: Tensor, asked: Tensor, live: Tensor) -> Tensor:
        """As `CrossAttention.forward`."""
        for layer in self.layers:
            asking = layer(asking, asked, live)
        read: Tensor = self.norm(asking)
        return read

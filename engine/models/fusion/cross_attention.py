"""Cross-attention: each tower asks the others."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.fusion.base import Fusion, brought, into_one_space, stood_in, tokens, wide
from kernels import combine_modalities


class CrossAttention(Fusion):
    """Each tower's vector attends to the other present ones (as between the modalities of LXMERT, Tan and Bansal
    2019, arXiv:1908.07490), then the mean over the towers. One pre-norm block, heads of at least 8 entries.

    One more key, learned and always there, lets a row of a single tower ask too: so no softmax is over nothing.
    """

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float) -> None:
        super().__init__(modality_dropout)
        self.heads = _heads(dim)
        self.towers = into_one_space(widths, dim)
        #: Which tower a vector is of: attention alone would not know.
        self.kinds = tokens(len(widths), dim)
        self.nobody = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.norm, self.query, self.key_value = (
            nn.LayerNorm(dim),
            nn.Linear(dim, dim),
            nn.Linear(dim, 2 * dim),
        )
        self.out = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )
        self.missing = tokens(len(widths), dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = self.as_trained(present)
        xs = torch.stack(brought(self.towers, pooled, present), dim=1)  # [rows, towers, dim]
        asked = xs + wide(self.out(self._answers(xs, present)))
        thought = asked + wide(self.feed_forward(asked))
        return combine_modalities(list(thought.unbind(1)), mask=present, mode="mean") + stood_in(
            present, self.missing
        )

    def _answers(self, xs: Tensor, present: Tensor) -> Tensor:
        """What each tower hears from the others, [rows, towers, dim]."""
        rows, towers, dim = xs.shape
        told = torch.cat([self.nobody.expand(rows, 1, dim), xs + self.kinds], dim=1)
        query, (key, value) = (
            self.query(self.norm(xs + self.kinds)),
            self.key_value(self.norm(told)).chunk(2, 2),
        )
        heard = functional.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value), attn_mask=_others(present)
        )
        return heard.transpose(1, 2).reshape(rows, towers, dim)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _others(present: Tensor) -> Tensor:
    """Whom each tower may ask: nobody's key, and the present ones but itself. [rows, 1, towers, 1 + towers], bool"""
    rows, towers = present.shape
    others = present.unsqueeze(1) & ~torch.eye(towers, dtype=torch.bool, device=present.device)
    return torch.cat([others.new_ones(rows, towers, 1), others], dim=2).unsqueeze(1)


def _heads(dim: int) -> int:
    """As many as divide `dim` into at least 8 entries each, and at most 8."""
    return next((heads for heads in (8, 4, 2) if dim % heads == 0 and dim // heads >= 8), 1)

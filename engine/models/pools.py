"""Pools that are trained: they make one vector of a film's frames. Know no encoder and no film."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from domain.manifest import MOST_FRAMES
from kernels import masked_token_pool

#: Of the keys that are compared with an attention pool's query.
KEY_DIM = 128
#: A few frames of a few hundred films: a larger transformer learns them by heart.
DIM, HEADS, LAYERS, DROPOUT = 128, 4, 2, 0.1


class AttentionPool(nn.Module):
    """The frames' weighted mean; the weights say how like a learned query each frame's key is.

    Yang et al. 2016 (Hierarchical Attention Networks, NAACL), Ilse et al. 2018 (arXiv:1802.04712). The frames' order is
    not seen. A query of zeros makes it the mean, where training begins.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, KEY_DIM)
        self.query = nn.Parameter(torch.zeros(KEY_DIM))

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """[films, frames, width] and how many of each are live -> [films, width]."""
        live = _live(frames, lengths)
        frames = torch.where(live.unsqueeze(2), frames, 0.0)
        scores = self.key(self.norm(frames)).tanh() @ self.query
        # A finite number: of a film without frames the softmax must be a number too, and be masked.
        weights = scores.float().masked_fill(~live, torch.finfo(torch.float32).min).softmax(1)
        return (torch.where(live, weights, 0.0).unsqueeze(2) * frames).sum(1)


class TransformerPool(nn.Module):
    """A pre-norm transformer over the frames in their order, and the mean of what it makes of them.

    As in CLIP4Clip's sequential transformer (Luo et al. 2021, arXiv:2104.08860) and ViViT's factorised encoder (Arnab et
    al. 2021, arXiv:2103.15691). Positions are the sinusoids of Vaswani et al. 2017 (arXiv:1706.03762), of frame numbers.
    """

    positions: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = DIM
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, DIM)
        layer = nn.TransformerEncoderLayer(
            DIM, HEADS, 4 * DIM, DROPOUT, activation="gelu", batch_first=True, norm_first=True
        )
        # Nested tensors do not go together with norms that come first.
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(DIM), enable_nested_tensor=False)
        self.register_buffer("positions", sinusoids(MOST_FRAMES, DIM), persistent=False)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """[films, frames, width] and how many of each are live -> [films, DIM]."""
        live = _live(frames, lengths)
        frames = torch.where(live.unsqueeze(2), frames, 0.0)
        tokens = self.project(self.norm(frames)) + self.positions[: frames.shape[1]]
        # Of a film without frames the first one is seen, as the softmax must see something; the mean sees none.
        hidden = self.layers(tokens, src_key_padding_mask=~_live(frames, lengths.clamp(min=1)))
        return masked_token_pool(hidden, lengths)


Pool = AttentionPool | TransformerPool

#: By the spec's word; of the width of the frames' vectors.
POOLS: dict[str, Callable[[int], Pool]] = {"attention": AttentionPool, "transformer": TransformerPool}


def _live(frames: Tensor, lengths: Tensor) -> Tensor:
    """[films, frames], bool: False for padding."""
    return torch.arange(frames.shape[1], device=frames.device) < lengths.unsqueeze(1)


def sinusoids(length: int, dim: int) -> Tensor:
    """[length, dim]: sines and cosines of wavelengths from 2 pi to 10000 * 2 pi."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)

"""From an encoder's vectors to words that a language model reads: LLaVA's projector (Liu et al. 2023, arXiv:2304.08485)."""

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """Any number of vectors a row, [rows, vectors, width] -> its `tokens` soft tokens, [rows, tokens * dim].

    Two linear layers, as in LLaVA 1.5 (arXiv:2310.03744), and a norm that begins at the scale of the language model's own
    words: so it needs no stage of training of its own.
    """

    def __init__(self, width: int, tokens: int, dim: int, scale: float) -> None:
        super().__init__()
        self.tokens, self.dim = tokens, dim
        self.width = tokens * dim
        self.norm = nn.LayerNorm(width)
        self.project = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))
        self.scaled = nn.LayerNorm(dim)
        nn.init.constant_(self.scaled.weight, scale)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """`lengths` says how many of each row are there."""
        vectors = averaged(vectors, lengths.to(vectors.device), self.tokens)
        return self.scaled(self.project(self.norm(vectors))).flatten(1)


def averaged(vectors: Tensor, lengths: Tensor, parts: int) -> Tensor:
    """The means over `parts` equal stretches of each row: [rows, vectors, width] -> [rows, parts, width].

    As adaptive average pooling does it, of each row's own length. A row with fewer vectors than parts has some twice.
    """
    part = torch.arange(parts, device=vectors.device)
    lengths = lengths.clamp(min=1).view(-1, 1)
    first = part * lengths // parts  # [rows, parts]
    end = -(-(part + 1) * lengths // parts)
    place = torch.arange(vectors.shape[1], device=vectors.device)
    inside = (place >= first.unsqueeze(2)) & (place < end.unsqueeze(2))  # [rows, parts, vectors]
    weights = inside.to(vectors.dtype) / (end - first).unsqueeze(2)
    live = place < lengths  # [rows, vectors]
    # What lies behind a row's end may be anything.
    return weights @ torch.where(live.unsqueeze(2), vectors, 0.0)

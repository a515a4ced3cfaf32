"""Feature-wise linear modulation: each tower is scaled and shifted by what the others say."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.models.fusion.base import Fusion, brought, into_one_space, stood_in, tokens
from kernels import combine_modalities


class Film(Fusion):
    """FiLM (Perez et al. 2018, arXiv:1709.07871), both ways round: no tower is only the condition of another.

    Each present tower's vector h becomes (1 + gamma) * h + beta, entry by entry, where gamma and beta are linear
    in the mean of the row's other present towers; the mean over the towers is the answer. As in the authors'
    code gamma is learned as what differs from 1.
    """

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float) -> None:
        super().__init__(modality_dropout)
        self.towers = into_one_space(widths, dim)
        self.films = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in widths)
        self.missing = tokens(len(widths), dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = self.as_trained(present)
        xs = brought(self.towers, pooled, present)
        modulated = [
            self._modulated(place, x, self._of_others(xs, place, present)) for place, x in enumerate(xs)
        ]
        return combine_modalities(modulated, mask=present, mode="mean") + stood_in(present, self.missing)

    def _of_others(self, xs: Sequence[Tensor], place: int, present: Tensor) -> Tensor:
        """The mean of the other present towers; zeros where there is none."""
        others = present.clone()
        others[:, place] = False
        return combine_modalities(xs, mask=others, mode="mean")

    def _modulated(self, place: int, x: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.films[place](condition).chunk(2, dim=1)
        modulated: Tensor = torch.addcmul(beta.to(x.dtype), 1 + gamma.to(x.dtype), x)
        return modulated

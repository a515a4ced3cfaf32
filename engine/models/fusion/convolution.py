"""A convolutional network over the towers."""

from collections.abc import Sequence

from torch import Tensor, nn

from engine.models.fusion.base import Fusion, brought, in_their_places, into_one_space, tokens, wide

#: Maps between the two convolutions, and entries that each looks at.
_MAPS, _KERNEL = 16, 3


class Convolution(Fusion):
    """The towers' vectors are the channels of a signal of `dim` entries, which two convolutions make one of.

    The weights are shared along the entries: it has fewer of them than any other fusion that looks at all towers at
    once. A missing tower's channel is its token.
    """

    def __init__(self, widths: Sequence[int], dim: int, modality_dropout: float) -> None:
        super().__init__(modality_dropout)
        self.towers = into_one_space(widths, dim)
        self.missing = tokens(len(widths), dim)
        self.network = nn.Sequential(
            nn.Conv1d(len(widths), _MAPS, _KERNEL, padding="same"),
            nn.GELU(),
            nn.Conv1d(_MAPS, 1, _KERNEL, padding="same"),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, pooled: Sequence[Tensor], present: Tensor) -> Tensor:
        present = self.as_trained(present)
        channels = in_their_places(brought(self.towers, pooled, present), present, self.missing)
        fused: Tensor = self.norm(wide(self.network(channels).squeeze(1)))
        return fused

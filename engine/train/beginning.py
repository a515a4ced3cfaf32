"""Before the first step of a contrastive training: its projections begin with standardised inputs."""

from collections.abc import Collection, Sequence
from typing import cast

import torch
from torch import Tensor

from engine.data.dataset import Examples
from engine.models.joint import JointSpace
from engine.models.multimodal import Multimodal
from engine.train.gpu_memory import Pieces
from engine.train.precision import Precision, autocast
from engine.train.words import ShouldStop, heed

#: Rows that means and deviations are taken of, where features are cached and where towers run for it.
ROWS_CACHED, ROWS_LIVE = 4096, 256
_AT_ONCE = 16


def standardise(
    model: Multimodal,
    space: JointSpace,
    examples: Examples,
    precision: Precision,
    should_stop: ShouldStop,
    taken: Collection[str] = frozenset(),
) -> None:
    """Over training rows that are spread evenly; not of the columns whose projections were `taken` over.

    Draws nothing at random. Raises StopAsked.
    """
    if set(model.names) <= set(taken):
        return
    device = next(model.parameters()).device
    count = min(len(examples), ROWS_CACHED if examples.is_cached else ROWS_LIVE)
    rows = torch.linspace(0, len(examples) - 1, count).long()

    def pooled(piece: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        heed(should_stop)
        batch = examples.batch(piece).to(device)
        # A joint space reads vectors, no tokens.
        return cast(Sequence[Tensor], model.pooled(batch.inputs, batch.present)), batch.present

    model.eval()
    with torch.no_grad(), autocast(precision, device):
        vectors, present = zip(*Pieces(_AT_ONCE).each(pooled, rows), strict=True)
    but = {model.names.index(name) for name in taken}
    space.standardise([torch.cat(column) for column in zip(*vectors, strict=True)], torch.cat(present), but)

"""A pretrained encoder as one thing: values in, one vector a row out. Knows no column, cache or training."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from domain.errors import EngineError
from domain.manifest import ColumnType
from domain.towers import Tower
from engine.data.values import Reading
from engine.models import audio, image, text, video
from engine.models.parts import FRAMES, VECTORS, Parts
from engine.models.pretrained import fingerprint

#: What a processor makes of some values: the network's inputs by name.
Prepared = Mapping[str, Tensor]

_OPENERS: dict[ColumnType, Callable[[Path, Tower], Parts]] = {
    ColumnType.TEXT: text.open_parts,
    ColumnType.IMAGE: image.open_parts,
    ColumnType.AUDIO: audio.open_parts,
    ColumnType.VIDEO: video.open_parts,
}


class Encoder(nn.Module):
    """`prepare` runs in any thread; `forward` gives [rows, width].

    With a `pool` the network gives any number of vectors a row, [frame_width] each, and the pool one of them. It is
    trained, whatever is frozen.
    """

    def __init__(self, parts: Parts, kind: ColumnType, fingerprint: str) -> None:
        super().__init__()
        self.network = parts.network
        self._prepare, self._embed = parts.prepare, parts.embed
        self.reading = Reading(
            kind, parts.sampling_rate, parts.max_seconds, parts.num_frames, parts.sampling, parts.frame_size
        )
        self.fingerprint = fingerprint
        #: Names the weights that are not those of its folder, where it is frozen and yet has some; else empty.
        self.carries = ""
        self.network.eval()
        with torch.no_grad():
            self.frame_width: int = self._embed(self.network, self.prepare([parts.example])).shape[1]
        self.pool = parts.pool(self.frame_width) if parts.pool else None
        self.width: int = self.pool.width if self.pool else self.frame_width

    def prepare(self, values: Sequence[Any]) -> Prepared:
        return self._prepare(values)

    def forward(self, inputs: Prepared) -> Tensor:
        """`inputs` are what `prepare` makes, or what `vectors` gave, by the names of `parts`."""
        if self.pool is None:
            return self._embed(self.network, inputs)
        vectors, frames = self.vectors(inputs)
        padded = pad_sequence(list(vectors.split(frames.tolist())), batch_first=True)
        return self.pool(padded, frames)

    def vectors(self, inputs: Prepared) -> tuple[Tensor, Tensor]:
        """The network's vectors before any pool: [all frames, frame_width], and how many are each row's."""
        if VECTORS in inputs:
            return inputs[VECTORS], inputs[FRAMES]
        vectors = self._embed(self.network, inputs)
        return vectors, inputs[FRAMES] if self.pool else torch.ones(len(vectors), dtype=torch.long)


def load_encoder(folder: Path, kind: ColumnType, tower: Tower) -> Encoder:
    """The encoder in `folder`, read the way `tower` says, in evaluation mode."""
    if kind not in _OPENERS:
        raise EngineError("invalid_spec", f"no encoder reads a column of type {kind}")
    parts = _OPENERS[kind](folder, tower)
    encoder = Encoder(parts, kind, fingerprint(folder, {"kind": str(kind), **parts.options}))
    return encoder.eval()

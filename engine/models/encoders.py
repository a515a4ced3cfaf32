"""A pretrained encoder as one thing: values in, one vector a row out. Knows no column, cache or training."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from domain.errors import EngineError
from domain.manifest import ColumnType
from domain.specs import Tower
from engine.data.values import Reading
from engine.models import audio, image, text, video
from engine.models.parts import Parts
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
    """`prepare` runs in any thread; `forward` gives [rows, width]."""

    def __init__(self, parts: Parts, kind: ColumnType, fingerprint: str) -> None:
        super().__init__()
        self.network = parts.network
        self._prepare, self._embed = parts.prepare, parts.embed
        self.reading = Reading(
            kind, parts.sampling_rate, parts.max_seconds, parts.num_frames, parts.sampling, parts.frame_size
        )
        self.fingerprint = fingerprint
        self.network.eval()
        with torch.no_grad():
            self.width: int = self(self.prepare([parts.example])).shape[1]

    def prepare(self, values: Sequence[Any]) -> Prepared:
        return self._prepare(values)

    def forward(self, inputs: Prepared) -> Tensor:
        return self._embed(self.network, inputs)


def load_encoder(folder: Path, kind: ColumnType, tower: Tower) -> Encoder:
    """The encoder in `folder`, read the way `tower` says, in evaluation mode."""
    if kind not in _OPENERS:
        raise EngineError("invalid_spec", f"no encoder reads a column of type {kind}")
    parts = _OPENERS[kind](folder, tower)
    encoder = Encoder(parts, kind, fingerprint(folder, {"kind": str(kind), **parts.options}))
    return encoder.eval()

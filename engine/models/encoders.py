"""A pretrained encoder as one thing: values in, one vector a row out, or several. Knows no column, cache or training."""

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
from engine.models.pools import Pool
from engine.models.pretrained import fingerprint
from engine.models.tokens import MAX_TOKENS, shrunk, summed_up

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

    With `max_tokens` it is read by `vectors` alone: each row has its tokens, so many at most.
    """

    def __init__(
        self, parts: Parts, kind: ColumnType, fingerprint: str, max_tokens: int | None = None
    ) -> None:
        super().__init__()
        self.network = parts.network
        self._prepare, self._embed = parts.prepare, parts.embed
        self._tokens, self.max_tokens = parts.tokens or self._one, max_tokens
        self.reading = Reading(
            kind, parts.sampling_rate, parts.max_seconds, parts.num_frames, parts.sampling, parts.frame_size
        )
        self.fingerprint = fingerprint
        #: What it would be with so many tokens, or with one vector (None): of the same weights, read otherwise.
        self.fingerprint_with: Callable[[int | None], str] = lambda _: fingerprint
        #: Names the weights that are not those of its folder, where it is frozen and yet has some; else empty.
        self.carries = ""
        self.network.eval()
        self.pool: Pool | None = None
        with torch.no_grad():
            read = self.vectors if max_tokens else lambda inputs: (self._embed(self.network, inputs), None)
            self.frame_width: int = read(self.prepare([parts.example]))[0].shape[1]
        if parts.pool and not max_tokens:
            self.pool = parts.pool(self.frame_width)
        self.width: int = self.pool.width if self.pool else self.frame_width

    @property
    def gives_several(self) -> bool:
        """Whether what a cache keeps of a row is any number of vectors."""
        return self.pool is not None or self.max_tokens is not None

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
        """The network's vectors before any pool, or its tokens: [all frames, frame_width], and how many are each row's."""
        if VECTORS in inputs:
            return inputs[VECTORS], inputs[FRAMES]
        if self.max_tokens is not None:
            return shrunk(*self._tokens(self.network, inputs), self.max_tokens)
        vectors = self._embed(self.network, inputs)
        return vectors, inputs[FRAMES] if self.pool else torch.ones(len(vectors), dtype=torch.long)

    def in_cells(self, vectors: Tensor, counts: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """What `vectors` gave, of cells of so many parts each: the tokens of all parts of a cell, one part's behind the
        other's, and not more than one part may have."""
        if bool((cells == 1).all()):
            return vectors, counts
        assert self.max_tokens is not None
        return shrunk(vectors, summed_up(counts, cells), self.max_tokens)

    def _one(self, network: nn.Module, inputs: Prepared) -> tuple[Tensor, Tensor]:
        vectors = self._embed(network, inputs)
        return vectors, torch.ones(len(vectors), dtype=torch.long, device=vectors.device)


def load_encoder(folder: Path, kind: ColumnType, tower: Tower, *, reads_tokens: bool = False) -> Encoder:
    """The encoder in `folder`, read the way `tower` says, in evaluation mode; its tokens instead of one vector if asked."""
    if kind not in _OPENERS:
        raise EngineError("invalid_spec", f"no encoder reads a column of type {kind}")
    parts = _OPENERS[kind](folder, tower)
    most = (tower.max_tokens or MAX_TOKENS) if reads_tokens else None

    def named(most: int | None) -> str:
        # What is kept of a cell is another thing with tokens, and must not pass for the vector.
        told = {"kind": str(kind), **parts.options} | ({"max_tokens": most} if most else {})
        return fingerprint(folder, told)

    encoder = Encoder(parts, kind, named(most), most)
    encoder.fingerprint_with = named
    return encoder.eval()

"""What each tower makes of some rows before any training, and what a network's towers make of them now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.data.dataset import CachedColumn, CachedFrames, Examples, LiveColumn, PlainColumn
from engine.models.encoders import Encoder
from engine.models.multimodal import Live, Multimodal
from engine.models.parts import FRAMES, VECTORS
from engine.models.pooling import mean_of_parts
from engine.models.tabular import CategoryNetwork
from engine.train.gpu_memory import Pieces

Tensors = dict[str, Tensor]

#: Rows encoded at once.
_AT_ONCE = 16
#: Values of a category that get a place of their own.
_MOST_VALUES = 256


@dataclass(frozen=True)
class Features:
    """One tower's vectors of some rows, [rows, width], and which rows have one: zeros in the others."""

    vectors: Tensor
    has: Tensor


def starting_weights(model: Multimodal) -> Tensors:
    """Copies of what training will change in the towers, on the CPU."""
    return {
        name: p.detach().to("cpu", copy=True) for name, p in model.trained() if name.startswith("encoders.")
    }


class Started:
    """`model` with its towers as they were before training, for as long as it is open; then again as it was."""

    def __init__(self, model: Multimodal, start: Tensors) -> None:
        self._model, self._start = model, start

    def __enter__(self) -> Multimodal:
        self._now = starting_weights(self._model)
        self._model.load_state_dict(self._start, strict=False)
        self._model.eval()
        return self._model

    def __exit__(self, *_: object) -> None:
        self._model.load_state_dict(self._now, strict=False)


def is_live(examples: Examples) -> bool:
    """Whether its rows must be read and encoded anew."""
    return not examples.is_cached


def features(
    model: Multimodal, examples: Examples, name: str, rows: Tensor, heed: Callable[[], None]
) -> Features | None:
    """Of the tower `name`, whose weights are those of `model`; None for inputs that are no vectors.

    A film of several frames is the mean of their vectors; a number is itself, standardised; a category is a place
    of its own. `heed` raises when asked to stop.
    """
    column = examples.columns[name]
    has = examples.present[rows, model.names.index(name)]
    match column:
        case CachedColumn():
            return Features(column.features[rows].float(), has)
        case CachedFrames():
            return Features(_mean_of_frames(column.fetch(rows), len(rows), column.vectors.shape[1]), has)
        case PlainColumn():
            plain = _plain(model.encoder(name), column.inputs, rows)
            return Features(torch.where(has.unsqueeze(1), plain, 0.0), has)
        case LiveColumn():
            return Features(_encoded(model.encoder(name), column, rows, heed), has)
        case _:
            return None


def _mean_of_frames(given: Live, rows: int, width: int) -> Tensor:
    out = torch.zeros(rows, width)
    if len(given.rows):
        out[given.rows] = mean_of_parts(given.inputs[VECTORS].float(), given.inputs[FRAMES])
    return out


def _plain(encoder: Encoder, inputs: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    network = encoder.network
    if isinstance(network, CategoryNetwork):
        count = min(_MOST_VALUES, network.vectors.num_embeddings)
        return functional.one_hot(inputs["places"][rows].clamp(max=count - 1), count).float()
    return inputs["numbers"][rows].float().unsqueeze(1)


@torch.no_grad()
def _encoded(encoder: Encoder, column: LiveColumn, rows: Tensor, heed: Callable[[], None]) -> Tensor:
    device = next(encoder.parameters()).device

    def encode(piece: Tensor) -> Tensor:
        heed()
        given = column.fetch(piece).to(device)
        out = torch.zeros(len(piece), encoder.frame_width)
        if len(given.rows):
            vectors, frames = encoder.vectors(given.inputs)
            vectors = mean_of_parts(vectors, frames)
            vectors = vectors if given.counts is None else mean_of_parts(vectors, given.counts)
            out[given.rows.cpu()] = vectors.float().cpu()
        return out

    pieces = Pieces(_AT_ONCE).each(encode, rows)
    return torch.cat([torch.zeros(0, encoder.frame_width), *pieces])

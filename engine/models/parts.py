"""What a modality's file hands to the encoder: a network and the functions around it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from engine.data.schedule import Sampling
from engine.models.pools import Pool

#: Of the inputs of a pool that is trained: how many vectors are each row's, and the vectors if they are known already.
FRAMES, VECTORS = "frames", "vectors"


@dataclass(frozen=True)
class Parts:
    network: nn.Module
    #: Values -> the network's inputs.
    prepare: Callable[[Sequence[Any]], Mapping[str, Tensor]]
    #: Network and inputs -> one vector a row; with `pool` one a frame, those of all rows in a row.
    embed: Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
    #: Everything beside the folder's files that changes the vectors.
    options: Mapping[str, Any]
    #: One value that `prepare` takes; it is run once to learn the width.
    example: Any
    #: Network and inputs -> the tokens of all rows in a row, [all tokens, width], and how many are each row's; where there
    #: is none, the vector is the one token.
    tokens: Callable[[nn.Module, Mapping[str, Tensor]], tuple[Tensor, Tensor]] | None = None
    sampling_rate: int | None = None
    max_seconds: float | None = None
    #: How a film is read: how many frames, which ones, and their shorter side in pixels (None: as it is).
    num_frames: int | None = None
    sampling: Sampling = "uniform"
    frame_size: int | None = None
    #: Makes what pools the frames, of their width; None where `embed` does, and nothing of that is trained.
    pool: Callable[[int], Pool] | None = None

"""Encoders that read a film as a whole - VideoMAE, TimeSformer, ViViT - and give it one vector."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import VivitImageProcessor
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from domain.errors import EngineError
from domain.manifest import MOST_FRAMES
from domain.towers import Tower
from engine.models.parts import Parts
from engine.models.pretrained import open_network, open_processor
from engine.models.tokens import of_all


def _mean(hidden: Tensor) -> Tensor:
    return hidden.mean(1)


def _first(hidden: Tensor) -> Tensor:
    return hidden[:, 0]


def _slower(hidden: Tensor, steps: int) -> Tensor:
    """Of tokens one time step's behind the other's, and perhaps a first one of the whole film."""
    return hidden[:, hidden.shape[1] % steps :].unflatten(1, (steps, -1)).mean(2)


def _faster(hidden: Tensor, steps: int) -> Tensor:
    """Of tokens one place's behind the other's, and a first one of the whole film."""
    return hidden[:, hidden.shape[1] % steps :].unflatten(1, (-1, steps)).mean(1)


@dataclass(frozen=True)
class _Family:
    #: What its models are published with; those of torchvision are not installed.
    processor: type
    #: What its own classifiers read: [films, tokens, width] -> [films, width].
    vector: Callable[[Tensor], Tensor]
    #: The mean of each time step's tokens, of which there are so many: -> [films, steps, width].
    in_time: Callable[[Tensor, int], Tensor]


#: By the config's `model_type`. All of them take pixels as [films, frames, channels, height, width].
FAMILIES = {
    "videomae": _Family(VideoMAEImageProcessorPil, _mean, _slower),
    "timesformer": _Family(VideoMAEImageProcessorPil, _first, _faster),
    "vivit": _Family(VivitImageProcessor, _first, _slower),
}


def open_parts(folder: Path, tower: Tower, config: Any) -> Parts:
    """A film is [frames, height, width, 3]. One of fewer frames than the encoder reads fills them evenly, in its order,
    each frame for as many of the encoder's as it was on the screen."""
    count, side = config.num_frames, _side(config)
    _refuse_other(tower, count, side)
    network, _ = open_network(folder)
    family = FAMILIES[config.model_type]
    processor = open_processor(family.processor, folder)

    def prepare(films: Sequence[np.ndarray]) -> Mapping[str, Tensor]:
        filled = [[film[n] for n in places(len(film), count)] for film in films]
        made = processor(filled, input_data_format="channels_last", return_tensors="pt")
        return {"pixel_values": made["pixel_values"]}

    def embed(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        hidden: Tensor = network(pixel_values=inputs["pixel_values"]).last_hidden_state
        return family.vector(hidden)

    def tokens(network: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        hidden: Tensor = network(pixel_values=inputs["pixel_values"]).last_hidden_state
        return of_all(family.in_time(hidden, count // _tubelet(config)))

    example = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    made, wanted = tuple(prepare([example])["pixel_values"].shape), (1, count, 3, side, side)
    if made != wanted:
        message = (
            f"{folder}: its processor makes pixels of {list(made)}, and its network reads {list(wanted)}"
        )
        raise EngineError("encoder_unusable", message)
    return Parts(
        network,
        prepare,
        embed,
        {"num_frames": count, "sampling": tower.sampling, "max_seconds": tower.max_seconds},
        example,
        tokens=tokens,
        max_seconds=tower.max_seconds,
        num_frames=count,
        sampling=tower.sampling,
        frame_size=_shorter_side(processor),
    )


def places(frames: int, count: int) -> list[int]:
    """Which of a film's `frames` are on the screen in the middles of `count` equal parts of it."""
    chosen: list[int] = ((2 * torch.arange(count) + 1) * frames // (2 * count)).tolist()
    return chosen


def _tubelet(config: Any) -> int:
    """Frames that one time step of the network stands for."""
    size = getattr(config, "tubelet_size", 1)
    return int(size if isinstance(size, int) else size[0])


def _side(config: Any) -> int:
    size = config.image_size
    return int(size if isinstance(size, int) else size[0])


def _refuse_other(tower: Tower, count: int, side: int) -> None:
    """What such an encoder was trained on is what it reads."""
    if count > MOST_FRAMES:
        raise EngineError(
            "encoder_unusable", f"this encoder reads {count} frames; at most {MOST_FRAMES} are taken"
        )
    if tower.num_frames not in (None, count):
        raise EngineError("invalid_spec", f"this encoder reads {count} frames; leave num_frames out")
    if tower.image_size not in (None, side):
        raise EngineError(
            "invalid_spec", f"this encoder reads frames of {side} pixels a side; leave image_size out"
        )
    if tower.pool != "mean":
        message = f"pool: {tower.pool} is for image encoders; this one makes one vector of a film itself"
        raise EngineError("invalid_spec", message)


def _shorter_side(processor: Any) -> int | None:
    """To what a frame is resized first: a decoder may as well make it that small."""
    size = dict(processor.size)
    sides = [size.get(name) for name in ("shortest_edge", "height", "width")]
    return max((side for side in sides if side), default=None)

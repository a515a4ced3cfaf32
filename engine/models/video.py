"""Films through an image encoder: each frame a vector, and of these one, by a pool that is trained or not.

Encoders of whole films are those of `clips`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from domain.towers import Tower
from engine.models import clips, image
from engine.models.parts import FRAMES, Parts
from engine.models.pools import POOLS
from engine.models.pretrained import open_config
from kernels import masked_token_pool

#: Of a film of some seconds they tell what is in it; more cost as much as so many pictures.
NUM_FRAMES = 8


def open_parts(folder: Path, tower: Tower) -> Parts:
    """A film is [frames, height, width, 3]; films of one batch may have different numbers of frames."""
    config = open_config(folder)
    if config.model_type in clips.FAMILIES:
        return clips.open_parts(folder, tower, config)
    frames = image.open_parts(folder, tower)
    count, pool = tower.num_frames or NUM_FRAMES, tower.pool

    def prepare(films: Sequence[np.ndarray]) -> Mapping[str, Tensor]:
        pixels = frames.prepare([frame for film in films for frame in film])["pixel_values"]
        return {"pixel_values": pixels, FRAMES: torch.tensor([len(film) for film in films])}

    def each(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        return frames.embed(network, {"pixel_values": inputs["pixel_values"]})  # [all frames, width]

    def pooled(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        vectors, lengths = each(network, inputs), inputs[FRAMES]
        rows = pad_sequence(list(vectors.split(lengths.tolist())), batch_first=True)  # [films, frames, width]
        return masked_token_pool(rows, lengths, mode="max" if pool == "max" else "mean")

    def tokens(network: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return each(network, inputs), inputs[FRAMES]

    # What a trained pool reads is the same for each of them.
    told = "frames" if pool in POOLS else pool
    read = {"num_frames": count, "sampling": tower.sampling, "pool": told, "max_seconds": tower.max_seconds}
    return replace(
        frames,
        prepare=prepare,
        embed=each if pool in POOLS else pooled,
        tokens=tokens,
        options={**frames.options, **read},
        example=np.zeros((1, 64, 64, 3), dtype=np.uint8),
        max_seconds=tower.max_seconds,
        num_frames=count,
        sampling=tower.sampling,
        pool=POOLS.get(pool),
    )

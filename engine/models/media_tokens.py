"""What a language model is given of media: a few vectors of each, of different places or times, not their mean alone.

A small reading of its own, around those that the modalities' files have.
"""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from domain.manifest import ColumnType
from domain.towers import Tower
from engine.models import audio, clips, image, spectrograms, video
from engine.models.encoders import Encoder
from engine.models.language import Language
from engine.models.parts import FRAMES, Parts
from engine.models.pretrained import fingerprint, open_config
from engine.models.projector import Projector, averaged


def load_media(folder: Path, kind: ColumnType, tower: Tower, most: int, language: Language) -> Encoder:
    """The encoder in `folder` whose vectors a projector makes `most` soft tokens of, at most."""
    parts, tokens = _READERS[kind](folder, tower, most)

    def pool(width: int) -> Any:
        return Projector(width, tokens, language.width, language.scale)

    parts = replace(parts, pool=pool)
    return Encoder(parts, kind, fingerprint(folder, {"kind": str(kind), **parts.options})).eval()


def _image(folder: Path, tower: Tower, most: int) -> tuple[Parts, int]:
    side = math.isqrt(most)
    parts = image.open_parts(folder, tower)
    hidden = _Hidden(parts)

    def embed(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        return _grid(hidden(network, inputs), side).flatten(0, 1)

    return _counted(parts, embed, side * side, "grid"), side * side


def _grid(hidden: Tensor, side: int) -> Tensor:
    """[pictures, side * side, width] of [pictures, width, h, w], or of a transformer's [pictures, tokens, width]."""
    return adaptive_avg_pool2d(_squared(hidden), side).flatten(2).transpose(1, 2)


def _squared(hidden: Tensor) -> Tensor:
    """[pictures, width, h, w] of it or of a transformer's [pictures, tokens, width]."""
    if hidden.dim() == 4:
        return hidden
    # Before the patches stand a class token, registers or nothing.
    edge = math.isqrt(hidden.shape[1])
    return hidden[:, -edge * edge :].unflatten(1, (edge, edge)).permute(0, 3, 1, 2)


def in_time(hidden: Tensor) -> Tensor:
    """What an image encoder makes of spectrograms, as `_squared` takes it -> [sounds, times, width]: the mean over pitch."""
    return _squared(hidden).mean(2).transpose(1, 2)


def _audio(folder: Path, tower: Tower, most: int) -> tuple[Parts, int]:
    parts = audio.open_parts(folder, tower)
    hidden, is_drawn = _Hidden(parts), spectrograms.OPTION in parts.options

    def embed(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        found = hidden(network, inputs)
        found = in_time(found) if is_drawn else found
        return averaged(found, _lengths(found, inputs.get("attention_mask")), most).flatten(0, 1)

    return _counted(parts, embed, most, "stretches"), most


def _lengths(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """How many places of each sound are more than padding."""
    whole = hidden.shape[1]
    if mask is None:
        return torch.full((len(hidden),), whole)
    return (mask.sum(1) * whole / mask.shape[1]).ceil().long().clamp(1, whole)


def _video(folder: Path, tower: Tower, most: int) -> tuple[Parts, int]:
    """Of an image encoder a vector a frame; of one that reads films whole, stretches of its tokens."""
    if open_config(folder).model_type not in clips.FAMILIES:
        parts = video.open_parts(folder, tower.model_copy(update={"pool": "attention"}))
        return parts, min(most, parts.num_frames or most)
    parts = clips.open_parts(folder, tower, open_config(folder))
    hidden = _Hidden(parts)

    def embed(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        found = hidden(network, inputs)
        return averaged(found, _lengths(found, None), most).flatten(0, 1)

    return _counted(parts, embed, most, "stretches"), most


_READERS = {ColumnType.IMAGE: _image, ColumnType.AUDIO: _audio, ColumnType.VIDEO: _video}


def _counted(parts: Parts, embed: Any, tokens: int, how: str) -> Parts:
    """`parts` with `tokens` vectors a row instead of one."""
    prepare = parts.prepare

    def counted(values: Sequence[Any]) -> Mapping[str, Tensor]:
        return {**prepare(values), FRAMES: torch.full((len(values),), tokens)}

    return replace(parts, prepare=counted, embed=embed, options={**parts.options, how: tokens})


class _Hidden:
    """What a network makes of every place or time, before it becomes one vector.

    How a network is called - with a mask or without, with positions stretched - its modality's file knows; here its answer
    is listened to. Threads that encode at once hear their own.
    """

    def __init__(self, parts: Parts) -> None:
        self._embed, self._heard = parts.embed, threading.local()
        parts.network.register_forward_hook(self._hear)

    def _hear(self, _network: nn.Module, _given: Any, output: Any) -> None:
        self._heard.hidden = output.last_hidden_state

    def __call__(self, network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        self._embed(network, {name: x for name, x in inputs.items() if name != FRAMES})
        hidden: Tensor = self._heard.hidden
        self._heard.hidden = None
        return hidden

"""Image encoders: pixels as the processor wants them, and the pooled vector or the global mean."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor

from domain.towers import Tower
from engine.models.parts import Parts
from engine.models.pretrained import open_network, open_processor
from engine.models.tokens import MAX_TOKENS, of_all, of_patches, shrunk_grid


def open_parts(folder: Path, tower: Tower) -> Parts:
    whole, missing = open_network(folder)
    network: Any = getattr(whole, "vision_model", whole)
    # Depth-wise convolutions run several times faster on the CPU with channels last.
    network.to(memory_format=torch.channels_last)
    processor = open_processor(AutoImageProcessor, folder, backend="pil", **_sizes(folder, tower.image_size))
    # Vision transformers stretch their positions to another size only when told to.
    stretches = tower.image_size is not None and _takes(network, "interpolate_pos_encoding")
    extra = {"interpolate_pos_encoding": True} if stretches else {}
    # A pooler that the folder has no weights for was just drawn at random.
    pooled = not missing

    def prepare(images: Sequence[np.ndarray]) -> Mapping[str, Tensor]:
        made = processor(images=list(images), input_data_format="channels_last", return_tensors="pt")
        return {"pixel_values": made["pixel_values"]}

    def embed(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"].contiguous(memory_format=torch.channels_last)
        output = network(pixel_values=pixels, **extra)
        if pooled and getattr(output, "pooler_output", None) is not None:
            return output.pooler_output.flatten(1)
        return _global_mean(output.last_hidden_state)

    def tokens(network: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        pixels = inputs["pixel_values"].contiguous(memory_format=torch.channels_last)
        hidden = network(pixel_values=pixels, **extra).last_hidden_state
        most = tower.max_tokens or MAX_TOKENS
        if hidden.dim() == 4:
            return of_all(shrunk_grid(hidden, most))
        return of_patches(hidden, _grid(network, pixels), most)

    example = np.zeros((64, 64, 3), dtype=np.uint8)
    return Parts(
        network,
        prepare,
        embed,
        {"image_size": tower.image_size},
        example,
        tokens=tokens,
        frame_size=_shorter_side(processor),
    )


def _shorter_side(processor: Any) -> int | None:
    """To what a picture is resized first: a decoder may as well make it that small."""
    size = processor.size
    sides = [size.shortest_edge] if size.shortest_edge else [size.height, size.width]
    return max((side for side in sides if side), default=None)


def _sizes(folder: Path, size: int | None) -> dict[str, Any]:
    """The processor's options that make every picture `size` pixels a side."""
    if size is None:
        return {}
    usual = open_processor(AutoImageProcessor, folder, backend="pil")
    exact = {"height": size, "width": size}
    sizes: dict[str, Any] = {"size": {"shortest_edge": size} if usual.size.shortest_edge else exact}
    return sizes | ({"crop_size": exact} if getattr(usual, "crop_size", None) else {})


def _takes(network: nn.Module, option: str) -> bool:
    return option in inspect.signature(network.forward).parameters


def _grid(network: Any, pixels: Tensor) -> tuple[int, int] | None:
    """How many patches a vision transformer cuts pictures into, down and across, if its config says so."""
    size = getattr(network.config, "patch_size", None)
    return (pixels.shape[2] // size, pixels.shape[3] // size) if isinstance(size, int) else None


def _global_mean(hidden: Tensor) -> Tensor:
    """[rows, width, h, w] of a convolutional network or [rows, tokens, width] of a transformer."""
    return hidden.flatten(2).mean(2) if hidden.dim() == 4 else hidden.mean(1)

"""Several files in a cell: the mean of their vectors, or the tokens of all. Knows no column and no file."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from engine.models.encoders import Encoder
from engine.models.pooling import mean_of_parts


def encode_parts(
    encoder: Encoder, parts: Iterable[Any], counts: Sequence[int], at_once: int, device: torch.device
) -> Tensor:
    """[len(counts), width]: each the mean over its next `counts` of `parts`, which are made as they are needed."""
    given = iter(parts)
    vectors = []
    while values := list(islice(given, at_once)):
        inputs = encoder.prepare(values)
        vectors.append(encoder({name: x.to(device) for name, x in inputs.items()}))
    return mean_of_parts(torch.cat(vectors) if len(vectors) > 1 else vectors[0], torch.tensor(counts))


def encode_tokens(
    encoder: Encoder, parts: Iterable[Any], counts: Sequence[int], at_once: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """As `encode_parts`, of an encoder that gives several vectors: [all vectors, width], and how many are each cell's."""
    given = iter(parts)
    vectors, lengths = [], []
    while values := list(islice(given, at_once)):
        inputs = encoder.prepare(values)
        found, of_each = encoder.vectors({name: x.to(device) for name, x in inputs.items()})
        vectors.append(found)
        lengths.append(of_each)
    return encoder.in_cells(torch.cat(vectors), torch.cat(lengths), torch.tensor(counts))

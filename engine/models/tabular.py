"""Number and category columns as towers: small networks that every job trains from nothing. Knows no file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from domain.manifest import ColumnType
from engine.data.column_statistics import NumberStatistics, Statistics, Vocabulary, as_json
from engine.models.encoders import Encoder
from engine.models.parts import Parts

#: Of the vectors that these towers give.
WIDTH = 32
#: Sines and cosines of a number, and the spread of their frequencies before training.
FREQUENCIES, FREQUENCY_SCALE = 16, 0.2
#: Share of the training cells whose value counts as unseen, so that the unseen value's vector is learned.
UNSEEN_RATE = 0.05


class NumberNetwork(nn.Module):
    """Periodic features of the standardised number and the number itself, through two layers. [rows] -> [rows, WIDTH]

    The periodic embedding is that of Gorishniy et al. 2022, arXiv:2203.05556; with the number itself beside it as
    in Holzmüller et al. 2024, arXiv:2407.04491.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(FREQUENCIES) * FREQUENCY_SCALE)
        self.layers = nn.Sequential(nn.Linear(2 * FREQUENCIES + 1, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, numbers: Tensor) -> Tensor:
        angles = 2 * torch.pi * numbers.unsqueeze(1) * self.frequencies
        return self.layers(torch.cat([numbers.unsqueeze(1), angles.sin(), angles.cos()], dim=1))


class CategoryNetwork(nn.Module):
    """A vector for each value, and place 0 for all that training did not see. [rows] of int64 -> [rows, WIDTH]"""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(1 + values, WIDTH)

    def forward(self, places: Tensor) -> Tensor:
        if self.training:
            unseen = torch.rand(places.shape, device=places.device) < UNSEEN_RATE
            places = places.masked_fill(unseen, 0)
        return self.vectors(places)


def tabular_encoder(kind: ColumnType, statistics: Statistics, *, reads_tokens: bool = False) -> Encoder:
    """The tower of a number or category column, untrained; `prepare` takes numbers, or words. Its vector is its token."""
    parts = _number(statistics) if isinstance(statistics, NumberStatistics) else _category(statistics)
    described = json.dumps({"kind": str(kind), **parts.options}, sort_keys=True)
    fingerprint = hashlib.sha256(described.encode()).hexdigest()
    return Encoder(parts, kind, fingerprint, 1 if reads_tokens else None).eval()


def _number(statistics: NumberStatistics) -> Parts:
    def prepare(values: Sequence[float]) -> Mapping[str, Tensor]:
        return {"numbers": torch.from_numpy(statistics.standardised(values))}

    return Parts(NumberNetwork(), prepare, partial(_of, "numbers"), as_json(statistics), example=0.0)


def _category(vocabulary: Vocabulary) -> Parts:
    def prepare(words: Sequence[str]) -> Mapping[str, Tensor]:
        return {"places": torch.tensor(vocabulary.places(words), dtype=torch.long)}

    network = CategoryNetwork(len(vocabulary.values))
    return Parts(network, prepare, partial(_of, "places"), as_json(vocabulary), example="")


def _of(name: str, network: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    return network(inputs[name])

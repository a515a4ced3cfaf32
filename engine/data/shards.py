"""One file of cached features: who finds what in it, and whether it is whole. Knows no folder, and no other machine."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


def key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Shard:
    """The wanted rows of one file: `into` says where each belongs, `counts` how many of the `features` it has."""

    into: Tensor
    features: Tensor
    counts: Tensor
    seconds_a_row: float


class Single:
    """The vector of each key, as the shards bring them."""

    def __init__(self, keys: int, width: int) -> None:
        self._found = torch.zeros(keys, width)
        self.counts = torch.zeros(keys, dtype=torch.int64)

    def take(self, shard: Shard, fresh: Tensor) -> None:
        self._found[shard.into[fresh]] = shard.features[fresh]
        self.counts[shard.into] = 1

    def features(self) -> Tensor:
        return self._found


class Several:
    """Each key's vectors."""

    def __init__(self, keys: int, width: int) -> None:
        self._found = [torch.zeros(0, width)] * keys
        self.counts = torch.zeros(keys, dtype=torch.int64)

    def take(self, shard: Shard, fresh: Tensor) -> None:
        for is_fresh, place, vectors in zip(
            fresh.tolist(), shard.into.tolist(), shard.features.split(shard.counts.tolist()), strict=True
        ):
            if is_fresh:
                self._found[place], self.counts[place] = vectors, len(vectors)

    def features(self) -> Tensor:
        return torch.cat(self._found) if self._found else torch.zeros(0)


def open_shard(path: Path, place: dict[str, int], width: int, *, several: bool) -> Shard | None:
    """None if nothing in it is wanted, or if it is gone, torn or altered."""
    try:
        with safe_open(path, framework="pt") as file:
            about, keys = file.metadata() or {}, file.get_tensor("keys")
            names = [row.tobytes().hex() for row in keys.numpy()]
            rows = [i for i, name in enumerate(names) if name in place]
            if not rows:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            seconds = about.get("seconds", "")
            if not _fits(tensors, len(names), width, several=several) or about.get("sha256") != digest(
                tensors, seconds
            ):
                raise SafetensorError("altered")
        # The least recently used shards are evicted first.
        os.utime(path)
    except SafetensorError:
        path.unlink(missing_ok=True)
        return None
    except OSError:
        return None
    return wanted(names, tensors, float(seconds), place)


def wanted(
    names: Sequence[str], tensors: Mapping[str, Tensor], seconds: float, place: dict[str, int]
) -> Shard | None:
    """What `place` asks for of a shard's keys; None if that is nothing."""
    rows = [i for i, name in enumerate(names) if name in place]
    if not rows:
        return None
    into = torch.tensor([place[names[i]] for i in rows])
    features, counts = tensors["features"], tensors.get("counts")
    if counts is None:
        kept, of_each = features[rows], torch.ones(len(rows), dtype=torch.int64)
    else:
        each = features.split(counts.tolist())
        kept, of_each = torch.cat([each[i] for i in rows]), counts[rows]
    return Shard(into, kept, of_each, seconds / len(names))


def _fits(tensors: Mapping[str, Tensor], rows: int, width: int, *, several: bool) -> bool:
    features, counts = tensors.get("features"), tensors.get("counts")
    if features is None or (counts is not None) != several:
        return False
    if counts is not None:
        if counts.shape != (rows,) or counts.dtype != torch.int64 or bool((counts < 1).any()):
            return False
        rows = int(counts.sum())
    return features.shape == (rows, width) and features.dtype == torch.float32


def digest(tensors: Mapping[str, Tensor], seconds: str) -> str:
    """What a shard says of itself, and what it must still be."""
    parts = [tensors[name].numpy().tobytes() for name in ("keys", "features", "counts") if name in tensors]
    return key(b"".join(parts) + seconds.encode())

"""The outputs of frozen towers, kept on disk by content. Knows no model: a tower is a folder's name here.

`<root>/<tower>/<random>.safetensors` are shards: keys, features, and what they cost. A shard is whole or
absent, so any number of jobs may write at once; one that was torn or altered is passed over and made anew.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

_SUFFIX = ".safetensors"
#: A writer that lives finishes its file sooner than this.
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class Found:
    """`features` [keys, width], zeros where `have` is False; `seconds` is what the found rows once cost."""

    features: Tensor
    have: Tensor
    seconds: float


def key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class FeatureCache:
    """One tower's shards. Rows of other data sets lie among them and are not read."""

    folder: Path
    width: int

    def read(self, keys: Sequence[str]) -> Found:
        """What is kept of `keys`, in their order, in float32."""
        place = {name: i for i, name in enumerate(keys)}
        features = torch.zeros(len(keys), self.width)
        have = torch.zeros(len(keys), dtype=torch.bool)
        seconds = 0.0
        for path in sorted(self.folder.glob("*" + _SUFFIX)):
            shard = _open(path, place, self.width)
            if shard is None:
                continue
            fresh = ~have[shard.into]
            features[shard.into[fresh]] = shard.features[fresh]
            have[shard.into] = True
            seconds += shard.seconds_a_row * int(fresh.sum())
        return Found(features, have, seconds)

    def append(self, keys: Sequence[str], features: Tensor, seconds: float) -> None:
        """Adds a shard that cost `seconds`: on disk, whole, when this returns."""
        tensors = {
            "keys": torch.frombuffer(bytearray(bytes.fromhex("".join(keys))), dtype=torch.uint8).view(-1, 32),
            "features": features.detach().to("cpu", torch.float32).contiguous(),
        }
        about = {"seconds": repr(seconds)}
        about["sha256"] = _digest(tensors["keys"], tensors["features"], about["seconds"])
        self.folder.mkdir(parents=True, exist_ok=True)
        write_durably(self.folder / f"{uuid.uuid4().hex}{_SUFFIX}", save(tensors, metadata=about))


@dataclass(frozen=True)
class _Shard:
    """The wanted rows of one file: `into` says where each belongs."""

    into: Tensor
    features: Tensor
    seconds_a_row: float


def _open(path: Path, place: dict[str, int], width: int) -> _Shard | None:
    """None if nothing in it is wanted, or if it is gone, torn or altered."""
    try:
        with safe_open(path, framework="pt") as file:
            about, keys = file.metadata() or {}, file.get_tensor("keys")
            names = [row.tobytes().hex() for row in keys.numpy()]
            rows = [i for i, name in enumerate(names) if name in place]
            if not rows:
                return None
            features = file.get_tensor("features")
            sound = features.shape == (len(names), width) and features.dtype == torch.float32
            seconds = about.get("seconds", "")
            if not sound or about.get("sha256") != _digest(keys, features, seconds):
                raise SafetensorError("altered")
        # The least recently used shards are evicted first.
        os.utime(path)
    except SafetensorError:
        path.unlink(missing_ok=True)
        return None
    except OSError:
        return None
    into = torch.tensor([place[names[i]] for i in rows])
    return _Shard(into, features[rows], float(seconds) / len(names))


def _digest(keys: Tensor, features: Tensor, seconds: str) -> str:
    return key(keys.numpy().tobytes() + features.numpy().tobytes() + seconds.encode())


def write_durably(path: Path, data: bytes) -> None:
    """`path` holds all of `data` or does not exist, also after a power cut."""
    draft = path.with_name(f".{uuid.uuid4().hex}.draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the folder's list of names durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def evict(root: Path, limit_bytes: int) -> None:
    """Drops the least recently used shards of all towers until at most `limit_bytes` are left."""
    shards = sorted(_sizes(root.glob("*/*" + _SUFFIX)), reverse=True)
    total = 0
    for _, size, path in shards:
        total += size
        if total > limit_bytes:
            path.unlink(missing_ok=True)
    for used, _, path in _sizes(root.glob("*/.*.draft")):
        if used < time.time() - _ABANDONED_S:
            path.unlink(missing_ok=True)


def _sizes(paths: Iterator[Path]) -> Iterator[tuple[float, int, Path]]:
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # another job evicted it
        yield status.st_mtime, status.st_size, path


def speedup_record(root: Path, towers: Sequence[str], keys: Sequence[str]) -> Path:
    """Where the gain of these towers' cache over these inputs is kept."""
    name = key("\n".join([*sorted(towers), "", *sorted(keys)]).encode())
    return root / "speedups" / f"{name}.json"


def kept_speedup(record: Path) -> float | None:
    try:
        return float(json.loads(record.read_text())["cached_epoch_speedup"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def keep_speedup(record: Path, value: float) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    write_durably(record, json.dumps({"cached_epoch_speedup": value}).encode())

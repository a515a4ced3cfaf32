"""The outputs of frozen towers, kept on disk by content. Knows no model: a tower is a folder's name here.

`<root>/<tower>/<random>.safetensors` are shards: keys, features, and what they cost. A shard is whole or
absent, so any number of jobs may write at once; one that was torn or altered is passed over and made anew.
In a shared place each shard is two objects, `features/<tower>/<random>.safetensors` and its keys alone, `.keys`.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from engine.data.shared import Patient, Warn

_SUFFIX = ".safetensors"
_KEYS = ".keys"
_KEY_BYTES = 32
#: A writer that lives finishes its file sooner than this.
_ABANDONED_S = 3600.0
#: Objects asked for at once.
_FETCHES = 8


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
    shared: Patient | None = None
    warn: Warn = lambda _: None
    #: What the disk did not take, for this job alone.
    kept_here: "list[tuple[list[str], Tensor, float]]" = field(default_factory=list, repr=False)

    def read(self, keys: Sequence[str]) -> Found:
        """What is kept of `keys`, in their order, in float32."""
        place = {name: i for i, name in enumerate(keys)}
        features = torch.zeros(len(keys), self.width)
        have = torch.zeros(len(keys), dtype=torch.bool)
        seconds = 0.0
        for shard in self._shards(place):
            fresh = ~have[shard.into]
            features[shard.into[fresh]] = shard.features[fresh]
            have[shard.into] = True
            seconds += shard.seconds_a_row * int(fresh.sum())
        return Found(features, have, seconds)

    def _shards(self, place: dict[str, int]) -> Iterator["_Shard"]:
        for path in sorted(self.folder.glob("*" + _SUFFIX)):
            shard = _open(path, place, self.width)
            if shard is not None:
                yield shard
        for names, features, seconds in self.kept_here:
            if shard := _wanted(names, features, seconds, place):
                yield shard

    def append(self, keys: Sequence[str], features: Tensor, seconds: float) -> None:
        """Adds a shard that cost `seconds`: on disk, whole, when this returns; on a disk that is full, in memory."""
        tensors = {
            "keys": torch.frombuffer(bytearray(bytes.fromhex("".join(keys))), dtype=torch.uint8).view(-1, 32),
            "features": features.detach().to("cpu", torch.float32).contiguous(),
        }
        about = {"seconds": repr(seconds)}
        about["sha256"] = _digest(tensors["keys"], tensors["features"], about["seconds"])
        name, data = uuid.uuid4().hex, save(tensors, metadata=about)
        if not self._write(name, data):
            self.kept_here.append((list(keys), tensors["features"], seconds))
        if self.shared is not None:
            self.shared.put(self._shared_name(name + _SUFFIX), data)
            # Sent last, it says that the shard is there.
            self.shared.put(self._shared_name(name + _KEYS), tensors["keys"].numpy().tobytes())

    def fetch(self, lacking: Collection[str]) -> int:
        """Brings here those shards from the shared place that have some of `lacking`; says how many they are."""
        if self.shared is None or not lacking:
            return 0
        begin = self._shared_name("")
        here = {path.stem for path in self.folder.glob("*" + _SUFFIX)}
        told = sorted(name for name in self.shared.names(begin) if name.endswith(_KEYS))
        names = [
            name for name in told if _is_name(name, begin) and name[len(begin) : -len(_KEYS)] not in here
        ]
        wanted = {bytes.fromhex(key) for key in lacking}
        with ThreadPoolExecutor(_FETCHES, thread_name_prefix="fetch") as pool:
            keys = pool.map(self.shared.get, names)
            chosen = [name for name, data in zip(names, keys, strict=True) if _has(data, wanted)]
            return sum(pool.map(self._fetch_one, chosen))

    def _fetch_one(self, name: str) -> bool:
        assert self.shared is not None
        data = self.shared.get(name.removesuffix(_KEYS) + _SUFFIX)
        return data is not None and self._write(name.rsplit("/", 1)[1].removesuffix(_KEYS), data)

    def _shared_name(self, name: str) -> str:
        return f"features/{self.folder.name}/{name}"

    def _write(self, name: str, data: bytes) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durably(self.folder / f"{name}{_SUFFIX}", data)
        except OSError as error:
            why = error.strerror or type(error).__name__
            self.warn(f"Features cannot be kept for other jobs ({why}); this one goes on without the cache.")
            return False
        return True


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
    return _wanted(names, features, float(seconds), place)


def _wanted(names: Sequence[str], features: Tensor, seconds: float, place: dict[str, int]) -> _Shard | None:
    rows = [i for i, name in enumerate(names) if name in place]
    if not rows:
        return None
    into = torch.tensor([place[names[i]] for i in rows])
    return _Shard(into, features[rows], seconds / len(names))


def _is_name(name: str, begin: str) -> bool:
    """Whether it can be one that `append` gave: names come from elsewhere, and become paths here."""
    random = name[len(begin) : -len(_KEYS)]
    return len(random) == 32 and set(random) <= set("0123456789abcdef")


def _has(data: bytes | None, wanted: Collection[bytes]) -> bool:
    keys = data or b""
    return any(keys[at : at + _KEY_BYTES] in wanted for at in range(0, len(keys), _KEY_BYTES))


def _digest(keys: Tensor, features: Tensor, seconds: str) -> str:
    return key(keys.numpy().tobytes() + features.numpy().tobytes() + seconds.encode())


def write_durably(path: Path, data: bytes) -> None:
    """`path` holds all of `data` or does not exist, also after a power cut."""
    draft = path.with_name(f".{uuid.uuid4().hex}.draft")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError:
        # Half a file on a full disk would keep it full.
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
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
    except (OSError, ValueError, KeyError):
        return None


def keep_speedup(record: Path, value: float) -> None:
    """On a disk that is full it is not kept."""
    with suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        write_durably(record, json.dumps({"cached_epoch_speedup": value}).encode())

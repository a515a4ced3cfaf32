"""The outputs of frozen towers, kept on disk by content. Knows no model: a tower is a folder's name here.

`<root>/<tower>/<random>.safetensors` are shards: keys, features, and what they cost; where a key has several vectors (a
film's frames), also how many. A shard is whole or absent, so any number of jobs may write at once; one that was torn or
altered is passed over and made anew.
In a shared place each shard is two objects, `features/<tower>/<random>.safetensors` and its keys alone, `.keys`.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    """`features` [keys, width], zeros where `have` is False; `seconds` is what the found rows once cost.

    Of a cache of `several`: [all vectors, width], those of the first key first; `counts` says how many are each key's.
    """

    features: Tensor
    have: Tensor
    seconds: float
    counts: Tensor


def key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class FeatureCache:
    """One tower's shards. Rows of other data sets lie among them and are not read."""

    folder: Path
    width: int
    #: Whether a key has any number of vectors, and not just one.
    several: bool = False
    shared: Patient | None = None
    warn: Warn = lambda _: None
    #: What the disk did not take, for this job alone.
    kept_here: "list[tuple[list[str], Mapping[str, Tensor], float]]" = field(default_factory=list, repr=False)

    def read(self, keys: Sequence[str]) -> Found:
        """What is kept of `keys`, in their order, in float32."""
        have = torch.zeros(len(keys), dtype=torch.bool)
        seconds = 0.0
        found = _Several(len(keys), self.width) if self.several else _Single(len(keys), self.width)
        for shard in self._shards({name: i for i, name in enumerate(keys)}):
            fresh = ~have[shard.into]
            found.take(shard, fresh)
            have[shard.into] = True
            seconds += shard.seconds_a_row * int(fresh.sum())
        return Found(found.features(), have, seconds, found.counts)

    def _shards(self, place: dict[str, int]) -> Iterator["_Shard"]:
        for path in sorted(self.folder.glob("*" + _SUFFIX)):
            shard = _open(path, place, self)
            if shard is not None:
                yield shard
        for names, tensors, seconds in self.kept_here:
            if shard := _wanted(names, tensors, seconds, place):
                yield shard

    def append(
        self, keys: Sequence[str], features: Tensor, seconds: float, counts: Tensor | None = None
    ) -> None:
        """Adds a shard that cost `seconds`: on disk, whole, when this returns; on a disk that is full, in memory.

        `counts` says how many of the `features` are each key's, in a cache of `several`.
        """
        tensors = {
            "keys": torch.frombuffer(bytearray(bytes.fromhex("".join(keys))), dtype=torch.uint8).view(-1, 32),
            "features": features.detach().to("cpu", torch.float32).contiguous(),
        }
        if self.several:
            assert counts is not None
            tensors["counts"] = counts.to("cpu", torch.int64).contiguous()
        about = {"seconds": repr(seconds)}
        about["sha256"] = _digest(tensors, about["seconds"])
        name, data = uuid.uuid4().hex, save(tensors, metadata=about)
        if not self._write(name, data):
            self.kept_here.append((list(keys), tensors, seconds))
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
    """The wanted rows of one file: `into` says where each belongs, `counts` how many of the `features` it has."""

    into: Tensor
    features: Tensor
    counts: Tensor
    seconds_a_row: float


class _Single:
    """The vector of each key, as the shards bring them."""

    def __init__(self, keys: int, width: int) -> None:
        self._found = torch.zeros(keys, width)
        self.counts = torch.zeros(keys, dtype=torch.int64)

    def take(self, shard: _Shard, fresh: Tensor) -> None:
        self._found[shard.into[fresh]] = shard.features[fresh]
        self.counts[shard.into] = 1

    def features(self) -> Tensor:
        return self._found


class _Several:
    """Each key's vectors."""

    def __init__(self, keys: int, width: int) -> None:
        self._found = [torch.zeros(0, width)] * keys
        self.counts = torch.zeros(keys, dtype=torch.int64)

    def take(self, shard: _Shard, fresh: Tensor) -> None:
        for is_fresh, place, vectors in zip(
            fresh.tolist(), shard.into.tolist(), shard.features.split(shard.counts.tolist()), strict=True
        ):
            if is_fresh:
                self._found[place], self.counts[place] = vectors, len(vectors)

    def features(self) -> Tensor:
        return torch.cat(self._found) if self._found else torch.zeros(0)


def _open(path: Path, place: dict[str, int], cache: FeatureCache) -> _Shard | None:
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
            if not _fits(tensors, len(names), cache) or about.get("sha256") != _digest(tensors, seconds):
                raise SafetensorError("altered")
        # The least recently used shards are evicted first.
        os.utime(path)
    except SafetensorError:
        path.unlink(missing_ok=True)
        return None
    except OSError:
        return None
    return _wanted(names, tensors, float(seconds), place)


def _wanted(
    names: Sequence[str], tensors: Mapping[str, Tensor], seconds: float, place: dict[str, int]
) -> _Shard | None:
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
    return _Shard(into, kept, of_each, seconds / len(names))


def _is_name(name: str, begin: str) -> bool:
    """Whether it can be one that `append` gave: names come from elsewhere, and become paths here."""
    random = name[len(begin) : -len(_KEYS)]
    return len(random) == 32 and set(random) <= set("0123456789abcdef")


def _has(data: bytes | None, wanted: Collection[bytes]) -> bool:
    keys = data or b""
    return any(keys[at : at + _KEY_BYTES] in wanted for at in range(0, len(keys), _KEY_BYTES))


def _fits(tensors: Mapping[str, Tensor], rows: int, cache: FeatureCache) -> bool:
    features, counts = tensors.get("features"), tensors.get("counts")
    if features is None or (counts is not None) != cache.several:
        return False
    if counts is not None:
        if counts.shape != (rows,) or counts.dtype != torch.int64 or bool((counts < 1).any()):
            return False
        rows = int(counts.sum())
    return features.shape == (rows, cache.width) and features.dtype == torch.float32


def _digest(tensors: Mapping[str, Tensor], seconds: str) -> str:
    parts = [tensors[name].numpy().tobytes() for name in ("keys", "features", "counts") if name in tensors]
    return key(b"".join(parts) + seconds.encode())


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

"""The outputs of frozen towers, kept on disk by content. Knows no model: a tower is a folder's name here.

`<root>/<tower>/<random>.safetensors` are shards: keys, features, and what they cost; where a key has several vectors (a
film's frames), also how many. A shard is whole or absent, so any number of jobs may write at once; one that was torn or
altered is passed over and made anew.
In a shared place each shard is two objects, `features/<tower>/<random>.safetensors` and its keys alone, `.keys`.
"""

import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from engine.data.durable import write_durably
from engine.data.shards import Several, Shard, Single, digest, open_shard, wanted
from engine.data.shared import KEYS, SHARD, Patient, Warn

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
        found = Several(len(keys), self.width) if self.several else Single(len(keys), self.width)
        for shard in self._shards({name: i for i, name in enumerate(keys)}):
            fresh = ~have[shard.into]
            found.take(shard, fresh)
            have[shard.into] = True
            seconds += shard.seconds_a_row * int(fresh.sum())
        return Found(found.features(), have, seconds, found.counts)

    def survey(self, keys: Sequence[str]) -> tuple[Tensor, float]:
        """Which of `keys` there are, and what they cost (seconds); of their features one shard's are held at a time."""
        have, seconds = torch.zeros(len(keys), dtype=torch.bool), 0.0
        for shard in self._shards({name: i for i, name in enumerate(keys)}):
            seconds += shard.seconds_a_row * int((~have[shard.into]).sum())
            have[shard.into] = True
        return have, seconds

    def _shards(self, place: dict[str, int]) -> Iterator[Shard]:
        for path in sorted(self.folder.glob("*" + SHARD)):
            shard = open_shard(path, place, self.width, several=self.several)
            if shard is not None:
                yield shard
        for names, tensors, seconds in self.kept_here:
            if shard := wanted(names, tensors, seconds, place):
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
        about["sha256"] = digest(tensors, about["seconds"])
        name, data = uuid.uuid4().hex, save(tensors, metadata=about)
        if not self._write(name, data):
            self.kept_here.append((list(keys), tensors, seconds))
        if self.shared is not None:
            # Sent last, the keys say that the shard is there.
            told = (self._shared_name(name + KEYS), tensors["keys"].numpy().tobytes())
            self.shared.put(self._shared_name(name + SHARD), data, told)

    def fetch(self, lacking: Collection[str]) -> int:
        """Brings here those shards from the shared place that have some of `lacking`; says how many they are."""
        if self.shared is None or not lacking:
            return 0
        begin = self._shared_name("")
        here = {path.stem for path in self.folder.glob("*" + SHARD)}
        there = set(self.shared.names(begin))
        # Keys may outlive their shard: a rule of the bucket's drops objects one by one.
        told = sorted(
            name for name in there if name.endswith(KEYS) and name.removesuffix(KEYS) + SHARD in there
        )
        names = [name for name in told if _is_name(name, begin) and name[len(begin) : -len(KEYS)] not in here]
        wanted = {bytes.fromhex(key) for key in lacking}
        with ThreadPoolExecutor(_FETCHES, thread_name_prefix="fetch") as pool:
            keys = pool.map(self.shared.get, names)
            chosen = [name for name, data in zip(names, keys, strict=True) if _has(data, wanted)]
            return sum(pool.map(self._fetch_one, chosen))

    def _fetch_one(self, name: str) -> bool:
        assert self.shared is not None
        data = self.shared.get(name.removesuffix(KEYS) + SHARD)
        return data is not None and self._write(name.rsplit("/", 1)[1].removesuffix(KEYS), data)

    def _shared_name(self, name: str) -> str:
        return f"features/{self.folder.name}/{name}"

    def _write(self, name: str, data: bytes) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durably(self.folder / f"{name}{SHARD}", data)
        except OSError as error:
            why = error.strerror or type(error).__name__
            self.warn(f"Features cannot be kept for other jobs ({why}); this one goes on without the cache.")
            return False
        return True


def _is_name(name: str, begin: str) -> bool:
    """Whether it can be one that `append` gave: names come from elsewhere, and become paths here."""
    random = name[len(begin) : -len(KEYS)]
    return len(random) == 32 and set(random) <= set("0123456789abcdef")


def _has(data: bytes | None, wanted: Collection[bytes]) -> bool:
    keys = data or b""
    return any(keys[at : at + _KEY_BYTES] in wanted for at in range(0, len(keys), _KEY_BYTES))


def evict(root: Path, limit_bytes: int) -> None:
    """Drops the least recently used shards of all towers until at most `limit_bytes` are left."""
    shards = sorted(_sizes(root.glob("*/*" + SHARD)), reverse=True)
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

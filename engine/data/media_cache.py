"""Decoded media by content: what a decoder gave for these bytes, read this way, by this version of it.

A value read back equals the value decoded, bit for bit, in type, shape and content. Loads no torch.
"""

import dataclasses
import hashlib
import json
import platform
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from domain.manifest import ColumnType
from engine.data import entries
from engine.data.entries import Bytes, Entries
from engine.data.shared import Patient, Warn
from engine.data.values import Read, Reading

#: To be raised whenever `engine.data.decode` gives other values for the same bytes, or an entry's description changes.
FORMAT = 1
#: Bytes of the description, a multiple of what arrays are aligned to.
_HEAD = 128
#: Arrays of integers and real numbers: all that decoders give, and nothing that could hold an object.
_KINDS = "uif"
#: What a tower that is trained keeps, for it reads each value in every epoch.
KEPT = frozenset({ColumnType.IMAGE, ColumnType.AUDIO, ColumnType.VIDEO})
#: What is so dear to decode that a frozen tower keeps it, too, for other encoders, and machines send it to one another.
DEAR = frozenset({ColumnType.VIDEO})
#: A picture that is so many times as large as its file is not kept: JPEG is 10 times smaller than its pixels and
#: decoded in 4 times the time that reading those takes (docs/DECISIONS.md).
_PICTURE_GROWS = 4
#: A smaller file counts as one of so many bytes.
_LEAST = 1024
#: A job that keeps more than this share of the limit has more media than fit. What is more is not kept, or the last
#: ones of an epoch would drive out the first ones, and every one would be missed in every epoch.
_MOST_OF_A_JOB = 0.8


@dataclass
class MediaCache:
    """The decoded media of all jobs on this machine, and what this job found of them. Any thread may ask."""

    entries: Entries
    shared: Patient | None = None
    warn: Warn = lambda _: None
    hits: int = 0
    misses: int = 0
    _kept_bytes: int = 0
    _is_off: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def hit_rate(self) -> float | None:
        """Of all times that a value was wanted which is kept; None if none was."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None

    def cached(self, read: Read, kinds: Collection[ColumnType]) -> "CachedRead":
        return CachedRead(self, read, frozenset(kinds))

    def find(self, digest: bytes, reading: Reading) -> Any | None:
        """The value of the bytes with this sha256, the caller's own; None if it must be decoded."""
        key = key_of(digest, reading)
        found = self.entries.get(key)
        if found is None and self.shared is not None and reading.kind in DEAR:
            found = self._fetched(key, self.shared)
        value = unpacked(found) if found is not None else None
        if value is None and found is not None:
            self.entries.drop(key)
        with self._lock:
            self.hits += value is not None
        return value

    def keep(self, data: bytes, digest: bytes, reading: Reading, value: Any) -> None:
        """Writes the value down if it is worth it; a disk that is full ends no job."""
        parts = packed(value)
        if parts is None or not is_worth(data, reading, value):
            return
        with self._lock:
            self.misses += 1
        key = key_of(digest, reading)
        self._write(key, parts)
        if self.shared is not None and reading.kind in DEAR:
            self.shared.put(f"media/{key}", b"".join([entries.envelope(key, parts), *parts]))

    def _fetched(self, key: str, shared: Patient) -> Bytes | None:
        data = shared.get(f"media/{key}")
        # A copy: what came is not to be written to.
        found = entries.opened(key, np.array(np.frombuffer(data, np.uint8))) if data else None
        if found is not None:
            self._write(key, [found.data])
        return found

    def _write(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        size = sum(memoryview(part).nbytes for part in parts)
        with self._lock:
            if self._is_off or self._kept_bytes + size > _MOST_OF_A_JOB * self.entries.limit:
                return
            self._kept_bytes += size
        try:
            self.entries.put(key, parts)
        except OSError as error:
            self._is_off = True
            why = error.strerror or type(error).__name__
            self.warn(f"Decoded media cannot be kept ({why}); the job goes on and decodes them each time.")


@dataclass(frozen=True)
class CachedRead:
    """A `Read` that asks the cache first, for values of these kinds."""

    cache: MediaCache
    read: Read
    kinds: frozenset[ColumnType]

    def __call__(self, data: bytes, reading: Reading) -> Any:
        if reading.kind not in self.kinds:
            return self.read(data, reading)
        return self.known(data, hashlib.sha256(data).digest(), reading)

    def known(self, data: bytes, digest: bytes, reading: Reading) -> Any:
        """The same for bytes whose sha256 is known, of a kind that is kept."""
        value = self.cache.find(digest, reading)
        if value is None:
            value = self.read(data, reading)
            self.cache.keep(data, digest, reading, value)
        return value


def is_worth(data: bytes, reading: Reading, value: Any) -> bool:
    """Whether a value is kept: one that is much larger than its file is decoded about as fast as it is read back."""
    grows = isinstance(value, np.ndarray) and value.nbytes > _PICTURE_GROWS * max(len(data), _LEAST)
    return not (reading.kind is ColumnType.IMAGE and grows)


def key_of(digest: bytes, reading: Reading) -> str:
    return hashlib.sha256(digest + _way(reading, versions(reading.kind))).hexdigest()


@cache
def _way(reading: Reading, decoders: str) -> bytes:
    return json.dumps([dataclasses.asdict(reading), decoders], sort_keys=True).encode()


@cache
def versions(kind: ColumnType) -> str:
    """Everything whose version may change what is decoded; processors of another kind may round otherwise."""
    parts = [f"format={FORMAT}", f"numpy={np.__version__}", f"machine={platform.machine()}"]
    if kind is ColumnType.IMAGE:
        parts += [f"pillow={version('pillow')}", *_of_pillow()]
    if kind is ColumnType.AUDIO:
        parts += [f"scipy={version('scipy')}", *_of_soundfile()]
    if kind is not ColumnType.IMAGE:
        parts += _of_ffmpeg()
    return " ".join(parts)


def _of_pillow() -> list[str]:
    from PIL import features

    return [f"{name}={features.version(name)}" for name in ("jpg", "jpg_2000", "zlib", "libtiff", "webp")]


def _of_soundfile() -> list[str]:
    import soundfile

    return [f"soundfile={soundfile.__version__}", f"libsndfile={soundfile.__libsndfile_version__}"]


def _of_ffmpeg() -> list[str]:
    import av

    libraries = sorted(av.library_versions.items())
    return [f"av={av.__version__}", *(f"{name}={'.'.join(map(str, v))}" for name, v in libraries)]


def packed(value: Any) -> list[bytes | memoryview] | None:
    """An array's description and its bytes; None for what is no array of numbers."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in _KINDS:
        return None
    about = json.dumps({"dtype": value.dtype.str, "shape": value.shape}).encode()
    if len(about) >= _HEAD:
        return None
    flat = np.ascontiguousarray(value).reshape(-1)
    return [about + b" " * (_HEAD - len(about)), flat.view(np.uint8).data]


def unpacked(data: Bytes) -> Any | None:
    """The array, a view of `data`; None if the description does not fit."""
    try:
        about = json.loads(data[:_HEAD].tobytes())
        kind, shape = np.dtype(about["dtype"]), tuple(map(int, about["shape"]))
        if kind.kind not in _KINDS or min(shape, default=0) < 0:
            return None
        return data[_HEAD:].view(kind).reshape(shape)
    except (ValueError, KeyError, TypeError):
        return None

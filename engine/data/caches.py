"""The two caches of a job, and what they may do: decoded media, and the outputs of frozen towers. Knows no model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.data.cache import FeatureCache, evict
from engine.data.entries import Entries
from engine.data.media_cache import DEAR, KEPT, MediaCache
from engine.data.shared import Patient, Shared, Warn, once
from engine.data.values import Read

#: How long a job that is done waits for what is still being sent to other machines (seconds).
_FLUSH_S = 10.0


@dataclass(frozen=True)
class Caches:
    """`limit` bytes of features, and as many of decoded media."""

    root: Path
    limit: int
    media: MediaCache
    shared: Patient | None
    warn: Warn

    def features(self, tower: str, width: int, *, several: bool = False) -> FeatureCache:
        """Of a tower; `several` where an input has any number of vectors."""
        return FeatureCache(self.root / tower, width, several, self.shared, self.warn)

    def training(self, read: Read) -> Read:
        """How a tower that is trained reads: it wants each value in every epoch."""
        return self.media.cached(read, KEPT)

    def encoding(self, read: Read) -> Read:
        """How a frozen tower reads: once, so that it keeps what other encoders may want and is dear to decode."""
        return self.media.cached(read, DEAR)

    def make_room(self) -> None:
        """Drops what was used longest ago; what cannot be dropped stays."""
        try:
            evict(self.root, self.limit)
        except OSError as error:
            self.warn(f"Old features cannot be removed ({error.strerror}); the job goes on.")
        self.media.entries.make_room()


@contextmanager
def open_caches(root: Path, limit: int, shared: Shared | None, warn: Warn) -> Iterator[Caches]:
    """The caches in the folder `root`; in `shared` they are other machines', too."""
    warn = once(warn)
    patient = Patient(shared, warn) if shared is not None else None
    try:
        yield Caches(root, limit, MediaCache(Entries(root / "media", limit), patient, warn), patient, warn)
        if patient is not None:
            patient.flush(_FLUSH_S)
    finally:
        if patient is not None:
            patient.close()

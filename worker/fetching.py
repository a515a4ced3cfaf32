"""Brings the bytes that a job reads to the machine that works on it.

In the child, not in the keeper: that goes on renewing the lease however long it takes, and a cancel or a time limit
ends a fetch as it ends any other work.
"""

import resource
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

from db.blobs import Blobs, open_blobs
from domain.errors import EngineError, Unavailable
from settings import Settings

#: The settings that say where bytes are, and how many may be here.
_NAMES = (
    "cache_bytes",
    "shared_cache",
    "s3_bucket",
    "s3_prefix",
    "s3_endpoint_url",
    "s3_region",
    "s3_access_key",
    "s3_secret_key",
)
#: A copy in use is an open file, and the rows of one prediction may name a thousand.
_OPEN_FILES = 4096


def storage_of(settings: Settings) -> dict[str, Any]:
    """What a child must be told to open the same store, as plain values."""
    return {"data": str(settings.data.absolute()), **{name: getattr(settings, name) for name in _NAMES}}


def fetch(held: ExitStack, storage: dict[str, Any], blob: str, sha256: str, *, param: str) -> str:
    """The path of the blob on this machine, which stays until `held` is closed."""
    try:
        return str(held.enter_context(_store(tuple(storage.items())).local(blob, sha256)))
    except FileNotFoundError:
        message = "The bytes of a file that the job reads are gone; upload it again."
        raise EngineError("file_not_found", message, param=param) from None
    except Unavailable as error:
        raise EngineError(error.code, error.message, param=param, retryable=True) from error
    except OSError as error:
        message = f"The worker could not fetch a file ({error.strerror or type(error).__name__})."
        raise EngineError("worker_unable", message, param=param, retryable=True) from error


def read_bytes(storage: dict[str, Any], blob: str, sha256: str, *, param: str) -> bytes:
    """All bytes of the blob; raises what `fetch` raises."""
    with ExitStack() as held:
        return Path(fetch(held, storage, blob, sha256, param=param)).read_bytes()


@lru_cache(maxsize=1)
def _store(storage: tuple[tuple[str, Any], ...]) -> Blobs:
    """One a process: a child that stays keeps its connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    told = dict(storage)
    return open_blobs(Settings(**told | {"data": Path(told["data"])}))

"""Uploaded files that a table's cells name by their ids: the keeper is asked where they are, and each is read by itself."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from domain.errors import EngineError
from domain.manifest import Code
from engine.data.archive import MAX_MEMBER_BYTES, Unreadable
from worker.child import Desk
from worker.fetching import read_bytes


def lookup(desk: Desk) -> Callable[[Sequence[str]], Mapping[str, Callable[[], bytes]]]:
    """For `open_dataset` and `train`: ids -> what reads each file's bytes, of those that the job's tenant has."""

    def look(ids: Sequence[str]) -> Mapping[str, Callable[[], bytes]]:
        found = desk.find_files(ids)
        return {id_: partial(_read, desk.storage, **found[id_]) for id_ in ids if id_ in found}

    return look


def _read(storage: dict[str, Any], *, blob: str, sha256: str, bytes: int) -> bytes:
    """No file stays open, and none is fetched before it is read."""
    if bytes > MAX_MEMBER_BYTES:
        message = f"the file has {bytes} bytes, at most {MAX_MEMBER_BYTES} are read; make it smaller"
        raise Unreadable(Code.TOO_LARGE, message)
    try:
        return read_bytes(storage, blob, sha256, param="training_file")
    except EngineError as error:
        if error.retryable:
            raise
        message = "the uploaded file was deleted while the job read the table; upload it again, and name that"
        raise Unreadable(Code.MISSING_MEDIA, message) from error

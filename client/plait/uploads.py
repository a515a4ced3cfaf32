"""Sends a large file in parts, several at once, and goes on where an earlier try ended.

Which parts of the file have arrived is told by their hashes: what changed in between is sent again, nothing else.
"""

import hashlib
import io
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from plait import config, paging
from plait.errors import LocalFileError, PlaitAPIError, PlaitConnectionError
from plait.slices import Meter, Progress, Slice
from plait.transport import Transport

log = logging.getLogger("plait")

#: Smaller files go in one request.
FROM_BYTES = 64 * 1024 * 1024
#: What a broken connection costs at most; the server takes twice as much.
PART_BYTES = 32 * 1024 * 1024
_AT_ONCE = 4
_CHUNK = 1024 * 1024
_PATH = "/uploads"
_PAGE = 1000
#: The server says so for a minute, then another try waits as long.
_MOST_TRIES_TO_COMPLETE = 60
_GO_ON = "What has arrived is kept for a day: push the same again to go on."


def send(
    transport: Transport, path: Path, new: Mapping[str, Any], source: Path, on_progress: Progress | None
) -> dict[str, Any]:
    """The file that the server made of `path`. `source` is what the user named: a later try finds it by that."""
    memory = _Memory(json.dumps([transport.config.base_url, str(source.resolve()), new], sort_keys=True))
    sending = _Sending(transport, path, new, on_progress)
    try:
        file = sending.earlier(memory.recall())
        if file is None:
            memory.keep(sending.begin())
            file = sending.run()
    except KeyboardInterrupt:
        log.warning(_GO_ON)
        raise
    except PlaitConnectionError as error:
        error.hint = f"{error.hint} {_GO_ON}" if error.hint else _GO_ON
        raise
    memory.forget()
    return file


class _Sending:
    """One file on its way."""

    def __init__(
        self, transport: Transport, path: Path, new: Mapping[str, Any], on_progress: Progress | None
    ) -> None:
        self._transport, self._path, self._new = transport, path, new
        self._before = _stamp(path)
        self._size = self._before[0]
        self._meter = Meter(self._size, on_progress)
        self._id: str | None = None
        self._arrived: dict[tuple[int, str], list[str]] = {}
        self._lock = threading.Lock()

    def earlier(self, upload_id: str | None) -> dict[str, Any] | None:
        """The file that an earlier try made without hearing of it; else what it sent is remembered."""
        if upload_id is None:
            return None
        try:
            upload = self._transport.get(paging.one(_PATH, upload_id))
        except PlaitAPIError:
            return None
        if upload.get("bytes") != self._size:
            return None
        if upload.get("status") == "pending":
            self._id = upload_id
            for part in paging.walk(self._transport, self._at("parts"), page=_PAGE):
                self._arrived.setdefault((part["bytes"], part["sha256"]), []).append(part["id"])
        return self._made(upload)

    def _made(self, upload: Mapping[str, Any]) -> dict[str, Any] | None:
        """The upload's file, if it holds what is to be sent."""
        file = upload.get("file")
        if upload.get("status") != "completed" or not file:
            return None
        return dict(file) if file.get("sha256") == _hash(self._path, 0, self._size) else None

    def begin(self) -> str:
        """The upload to fill: the earlier one, or a new one."""
        if self._id is None:
            self._id = str(self._transport.post(_PATH, {**self._new, "bytes": self._size})["id"])
        return self._id

    def run(self) -> dict[str, Any]:
        try:
            parts = self._send_all()
            if _stamp(self._path) != self._before:
                raise LocalFileError(f"{self._path} changed while it was sent; push it again.")
            return self._complete(parts)
        except PlaitAPIError as error:
            # Another process may have sent the same file, by the same upload.
            made = self._made(self._transport.get(self._at())) if error.status == 409 else None
            if made is None:
                raise
            return made

    def _send_all(self) -> list[str]:
        """The ids of the parts, in the file's order."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            spans = range(0, self._size, PART_BYTES)
            futures = [pool.submit(self._part, start) for start in spans]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failed = [future for future in done if future.exception()]
                return [future.result() for future in failed or futures]
            except BaseException:
                self._meter.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _part(self, start: int) -> str:
        length = min(PART_BYTES, self._size - start)
        known = self._take(start, length)
        if known is not None:
            self._meter.add(length)
            return known
        with Slice(self._path, start, length, self._meter) as data:
            sent = ("data", (self._new["filename"], data, "application/octet-stream"))
            answer = self._transport.post_form(self._at("parts"), {}, [sent])
            if answer["sha256"] != data.digest.hexdigest():
                raise PlaitConnectionError("A part arrived damaged.", hint=_GO_ON)
        return str(answer["id"])

    def _take(self, start: int, length: int) -> str | None:
        """A part that has arrived with these very bytes; each stands for one place in the file."""
        if not any(size == length for size, _ in self._arrived):
            return None
        found = (length, _hash(self._path, start, length))
        with self._lock:
            ids = self._arrived.get(found)
            return ids.pop() if ids else None

    def _complete(self, parts: list[str]) -> dict[str, Any]:
        for _ in range(_MOST_TRIES_TO_COMPLETE):
            try:
                done = self._transport.post(self._at("complete"), {"part_ids": parts})
                return dict(done["file"])
            except PlaitAPIError as error:
                if error.code != "upload_completing":
                    raise
        raise PlaitConnectionError("The server does not come to an end with the file.", hint=_GO_ON)

    def _at(self, *below: str) -> str:
        return "/".join([paging.one(_PATH, self._id or ""), *below])


class _Memory:
    """Which upload a file was being sent by, for a later process. Where nothing can be kept, nothing is resumed."""

    def __init__(self, what: str) -> None:
        name = hashlib.sha256(what.encode()).hexdigest()[:32]
        self._path = config.cache_folder() / "uploads" / name

    def recall(self) -> str | None:
        try:
            return self._path.read_text(encoding="ascii").strip() or None
        except (OSError, ValueError):
            return None

    def keep(self, upload_id: str) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(upload_id, encoding="ascii")
        except OSError as error:
            log.warning("an interrupted upload could not be resumed: %s", error)

    def forget(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            log.debug("%s stays", self._path)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change: other ones say that the file is another."""
    try:
        about = path.stat()
    except OSError as error:
        raise LocalFileError(f"{path} cannot be read: {error.strerror}.") from None
    return about.st_size, about.st_mtime_ns


def _hash(path: Path, start: int, length: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        for chunk in _chunks(file, length):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: io.BufferedReader, length: int) -> Iterator[bytes]:
    while length > 0 and (chunk := file.read(min(_CHUNK, length))):
        length -= len(chunk)
        yield chunk

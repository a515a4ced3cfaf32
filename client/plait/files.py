"""Files on the server: sending, listing, fetching, deleting."""

import io
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from plait import archive, paging, uploads, waiting
from plait.checks import Check
from plait.errors import LocalFileError
from plait.slices import Progress
from plait.transport import Transport

_PATH = "/files"
_TYPES = {
    ".zip": "application/zip",
    ".jsonl": "application/jsonl",
    ".csv": "text/csv",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True)
class File:
    id: str
    filename: str
    bytes: int
    purpose: str
    status: str | None
    created_at: int | None
    #: The server's whole answer.
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "File":
        return cls(
            id=raw["id"],
            filename=raw.get("filename") or "",
            bytes=raw.get("bytes") or 0,
            purpose=raw.get("purpose") or "",
            status=raw.get("status"),
            created_at=raw.get("created_at"),
            raw=raw,
        )


class Files:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def push(
        self,
        path: str | os.PathLike[str],
        purpose: str = "fine-tune",
        schema: Mapping[str, Any] | None = None,
        *,
        on_progress: Progress | None = None,
    ) -> File:
        """Sends a file, or a folder as a zip. `schema` says which columns there are; else they are inferred.

        Large ones go in parts. Was that interrupted, the same call goes on where it ended, within a day.
        """
        path = Path(path)
        about = {"purpose": purpose} | ({} if schema is None else {"schema": dict(schema)})
        if not path.is_dir():
            return self._send(path, path.name, path, about, on_progress)
        with tempfile.TemporaryDirectory(prefix="plait-") as folder:
            packed = Path(folder) / "folder.zip"
            archive.pack(path, packed)
            return self._send(packed, f"{path.resolve().name or 'folder'}.zip", path, about, on_progress)

    def _send(
        self, path: Path, name: str, named: Path, about: dict[str, Any], on_progress: Progress | None
    ) -> File:
        name = name.encode("utf-8", "replace").decode()
        content_type = _TYPES.get(Path(name).suffix.lower(), "application/octet-stream")
        if path.is_file() and path.stat().st_size >= uploads.FROM_BYTES:
            new = {**about, "filename": name, "mime_type": content_type}
            return File.of(uploads.send(self._transport, path, new, named, on_progress))
        form = {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
        try:
            source = _Metered(path, on_progress)
        except OSError as error:
            raise LocalFileError(f"{path} cannot be read: {error.strerror}.") from None
        with source:
            part = ("file", (name, source, content_type))
            return File.of(self._transport.post_form(_PATH, form, [part]))

    def list(
        self, *, after: str | None = None, limit: int | None = None, purpose: str | None = None
    ) -> Iterator[File]:
        """Newest first, at most `limit` in all; pages are fetched as they are needed."""
        params = {"purpose": purpose} if purpose else None
        return map(File.of, paging.walk(self._transport, _PATH, after=after, limit=limit, params=params))

    def get(self, file_id: str) -> File:
        return File.of(self._transport.get(paging.one(_PATH, file_id)))

    def delete(self, file_id: str) -> None:
        self._transport.delete(paging.one(_PATH, file_id))

    def validate(
        self,
        file_id: str,
        spec: Mapping[str, Any] | None = None,
        role: str = "training",
        *,
        wait: bool | float = True,
    ) -> Check:
        """Reads every row and medium of a file as a job would, and says what is wrong; nothing is trained.

        `spec` is the `multimodal` part of a create body, `role` is training, validation or test. Waits until the
        check is final, or `wait` seconds (False: not at all).
        """
        body = {"role": role} | ({} if spec is None else {"multimodal": dict(spec)})
        seconds = waiting.seconds_of(wait)
        path = f"{paging.one(_PATH, file_id)}/validate"
        raw = self._transport.post(path, body, headers=waiting.prefer(seconds))
        job = paging.one("/jobs", raw["id"])
        return Check.of(waiting.until_final(self._transport, job, raw, seconds))

    def content(self, file_id: str) -> bytes:
        """All bytes in memory; `download` is for large files."""
        with self._transport.chunks(f"{paging.one(_PATH, file_id)}/content") as (_, chunks):
            return b"".join(chunks)

    def download(
        self, file_id: str, to: str | os.PathLike[str], *, on_progress: Progress | None = None
    ) -> Path:
        """Writes the bytes to the path `to`, which appears when it is whole."""
        target = Path(to)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with part.open("xb") as out:
                self._fetch(file_id, out, on_progress)
            part.replace(target)
        except OSError as error:
            raise LocalFileError(f"{target} cannot be written: {error.strerror}.") from None
        finally:
            part.unlink(missing_ok=True)
        return target

    def _fetch(self, file_id: str, out: BinaryIO, on_progress: Progress | None) -> None:
        with self._transport.chunks(f"{paging.one(_PATH, file_id)}/content") as (size, chunks):
            for chunk in chunks:
                out.write(chunk)
                if on_progress:
                    on_progress(out.tell(), size or 0)


class _Metered(io.FileIO):
    """A file that tells how far it was read. A retry rewinds it."""

    def __init__(self, path: Path, on_progress: Progress | None) -> None:
        super().__init__(path)
        self._size = os.fstat(self.fileno()).st_size
        self._on_progress = on_progress

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(-1 if size is None else size)
        if self._on_progress:
            self._on_progress(self.tell(), self._size)
        return chunk or b""

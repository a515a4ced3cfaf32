"""Bytes of files in an S3-compatible store. An object appears whole or not at all; what is unfinished is swept.

A blob that stands for itself is the object `files/<key>`, a part `parts/<owner>/<number>`: parts can be listed by
their owner, and a rule of the bucket's can tell the two apart.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from db.blobs.copies import Copies
from db.blobs.folder import drop_old
from db.blobs.joined import Joined
from db.blobs.object import open_object
from db.blobs.requests import Place, asking
from db.blobs.store import CHUNK, Measured, Stored, Watch, is_key, split

#: Bytes that one upload has in memory; 10,000 parts of this size are the most that an object may have.
PART = 8 * 1024 * 1024
_MOST_PARTS = 10_000
#: The store itself copies parts of at least this many bytes; only the last may be smaller.
_LEAST_COPIED = 5 * 1024 * 1024


class S3Blobs:
    """A blob store in a bucket. `public_url` is the store's address in links; None gives none."""

    def __init__(
        self, place: Place, *, prefix: str, spool: Path, copies: Copies, public_url: str | None = ""
    ) -> None:
        self._bucket, self._prefix, self.spool, self._copies = place.bucket, prefix, spool, copies
        self._client = place.client()
        self._links = place.client(public_url) if public_url else self._client
        self._has_links = public_url is not None

    def write(self, key: str, stream: BinaryIO, *, limit: int | None = None) -> Stored:
        at, measured = self._at(key), Measured(stream, limit)
        with asking(key):
            first = _full(measured)
            if len(first) < PART:
                self._client.put_object(**at, Body=first)
            else:
                with self._upload(at) as (upload, parts):
                    chunk = first
                    while chunk:
                        number = len(parts) + 1
                        sent = self._client.upload_part(**at, **upload, PartNumber=number, Body=chunk)
                        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
                        chunk = _full(measured)
        return measured.stored

    def read(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        end = self.size(key)
        end = end if length is None else min(end, start + length)
        return open_object(partial(self._client.get_object, **self._at(key)), key, start, end)

    def size(self, key: str) -> int:
        with asking(key):
            return int(self._client.head_object(**self._at(key))["ContentLength"])

    @contextlib.contextmanager
    def local(self, key: str, sha256: str | None = None) -> Iterator[Path]:
        split(key)
        with self._copies.hold(key, partial(self.read, key), sha256) as path:
            yield path

    def join(self, key: str, parts: Sequence[str], *, watch: Watch | None = None) -> Stored:
        sizes = [(part, size) for part in parts if (size := self.size(part))]
        can_copy = len(sizes) <= _MOST_PARTS and all(size >= _LEAST_COPIED for _, size in sizes[:-1])
        with cast(BinaryIO, Joined((partial(self.read, part) for part, _ in sizes), watch)) as stream:
            if not can_copy or len(sizes) < 2:
                return self.write(key, stream)
            at, measured = self._at(key), Measured(stream)
            with asking(key), self._upload(at) as (upload, copied):
                for number, (part, size) in enumerate(sizes, start=1):
                    done = self._client.upload_part_copy(
                        **at, **upload, PartNumber=number, CopySource=self._at(part)
                    )
                    copied.append({"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]})
                    # The store does not know the sha256 of the whole: the bytes pass by once.
                    _pass_by(measured, size)
            return measured.stored

    def link(self, key: str, filename: str, seconds: int) -> str | None:
        if not self._has_links:
            return None
        told = {
            "ResponseContentType": "application/octet-stream",
            "ResponseContentDisposition": _disposition(filename),
        }
        params = {**self._at(key), **told}
        return str(self._links.generate_presigned_url("get_object", Params=params, ExpiresIn=seconds))

    def delete(self, key: str) -> None:
        with asking(key):
            self._client.delete_object(**self._at(key))

    def delete_of(self, owner: str) -> None:
        split(owner)
        for found in self._objects(f"parts/{owner}/"):
            with asking(owner):
                self._client.delete_object(Bucket=self._bucket, Key=found["Key"])

    def owners(self, prefix: str) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for one in self._objects(f"parts/{prefix}"):
            owner = str(one["Key"]).split("/")[-2]
            if not is_key(owner):
                continue
            found[owner] = max(found.get(owner, 0.0), one["LastModified"].timestamp())
        return found

    def keys(self, before: float) -> Iterator[str]:
        for one in self._objects("files/"):
            key = str(one["Key"]).removeprefix(f"{self._prefix}files/")
            if is_key(key) and one["LastModified"].timestamp() < before:
                yield key

    def drop_leftovers(self, before: float) -> None:
        """Ends the uploads that nobody ends any more; the store keeps their parts, and charges for them, until then."""
        drop_old([*self.spool.glob(".form-*")], before)
        pages = self._client.get_paginator("list_multipart_uploads")
        with asking("uploads"):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for one in page.get("Uploads", []):
                    if one["Initiated"].timestamp() < before:
                        self._abort({"Bucket": self._bucket, "Key": one["Key"]}, one["UploadId"])

    def _at(self, key: str) -> dict[str, str]:
        """Where the store has the blob. Refuses what is no key."""
        name, owner = split(key)
        path = f"parts/{owner}/{name}" if owner else f"files/{name}"
        return {"Bucket": self._bucket, "Key": self._prefix + path}

    @contextlib.contextmanager
    def _upload(self, at: dict[str, str]) -> Iterator[tuple[dict[str, str], list[dict[str, Any]]]]:
        """An upload in parts, which the block adds: an object at its end, nothing if it fails."""
        upload_id = self._client.create_multipart_upload(**at)["UploadId"]
        parts: list[dict[str, Any]] = []
        try:
            yield {"UploadId": upload_id}, parts
            self._complete(at, upload_id, parts)
        except BaseException:
            self._abort(at, upload_id)
            raise

    def _complete(self, at: dict[str, str], upload_id: str, parts: list[dict[str, Any]]) -> None:
        try:
            self._client.complete_multipart_upload(**at, UploadId=upload_id, MultipartUpload={"Parts": parts})
        except ClientError as error:
            # The answer to the first try was lost, and the second found the upload complete.
            if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
                raise
            self._client.head_object(**at)

    def _abort(self, at: dict[str, str], upload_id: str) -> None:
        # What cannot be ended now is ended by `drop_leftovers`.
        with contextlib.suppress(BotoCoreError, ClientError):
            self._client.abort_multipart_upload(**at, UploadId=upload_id)

    def _objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2")
        with asking(prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                yield from page.get("Contents", [])


def _full(stream: Measured) -> bytearray:
    """The next PART of the stream; less only at its end."""
    found = bytearray()
    while len(found) < PART and (chunk := stream.read(min(CHUNK, PART - len(found)))):
        found += chunk
    return found


def _pass_by(stream: Measured, size: int) -> None:
    while size > 0 and (chunk := stream.read(min(CHUNK, size))):
        size -= len(chunk)


def _disposition(filename: str) -> str:
    """RFC 6266: the name as it is, and for old clients without what is not ASCII."""
    plain = filename.encode("ascii", "replace").decode().replace("\\", "_").replace('"', "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"

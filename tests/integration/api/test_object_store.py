"""The door of an installation that keeps its bytes in an object store."""

import hashlib
import os
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from db.blobs import open_blobs
from settings import Settings
from support.databases import migrated
from support.door import JSONL, Door
from support.object_store import ObjectStore


@pytest.fixture
def make(object_store: ObjectStore, tmp_path: Path) -> Any:
    """Makes a door to the store, with other settings if they are given."""
    with migrated(f"sqlite:///{tmp_path / 'plait.db'}") as database:
        yield lambda **more: Door(
            database, Settings(data=tmp_path / "data", **(object_store.settings() | more))
        )


def test_a_download_is_sent_to_the_store_where_anybody_may_fetch_it(make: Any) -> None:
    door = make()
    answer = door.get(f"/v1/files/{door.file()}/content")

    assert answer.status_code == 307
    assert answer.headers["Cache-Control"] == "no-store"
    asked = urllib.request.Request(answer.headers["Location"], headers={"Range": "bytes=2-4"})
    with urllib.request.urlopen(answer.headers["Location"]) as whole, urllib.request.urlopen(asked) as part:
        assert (whole.read(), part.status, part.read()) == (JSONL, 206, JSONL[2:5])
        assert whole.headers["Content-Disposition"].startswith("attachment; ")


def test_where_clients_do_not_reach_the_store_the_door_sends_the_bytes(make: Any) -> None:
    door = make(s3_public_endpoint_url="none")
    path = f"/v1/files/{door.file()}/content"

    whole, part = door.get(path), door.get(path, headers={"Range": "bytes=2-4"})

    assert (whole.status_code, whole.data, whole.content_length) == (200, JSONL, len(JSONL))
    assert (part.status_code, part.data) == (206, JSONL[2:5])
    assert door.get(path, headers={"Range": "bytes=9999-"}).status_code == 416


def test_who_has_the_bytes_already_is_sent_nowhere(make: Any) -> None:
    door = make()
    file_id = door.file()
    tag = door.send("HEAD", f"/v1/files/{file_id}/content").headers["ETag"]

    answer = door.get(f"/v1/files/{file_id}/content", headers={"If-None-Match": tag})

    assert (answer.status_code, answer.data) == (304, b"")


def test_bytes_that_are_gone_are_told_before_anybody_is_sent_for_them(make: Any) -> None:
    door = make()
    file_id = door.file()
    open_blobs(door.settings).delete(file_id)

    answer = door.get(f"/v1/files/{file_id}/content")

    assert (answer.status_code, answer.json["error"]["code"]) == (404, "file_not_found")


def test_a_store_that_is_down_is_a_503_with_a_time_to_come_back(make: Any) -> None:
    door = make()
    file_id = door.file()
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        away = make(s3_endpoint_url=f"http://127.0.0.1:{unheard.getsockname()[1]}")

        answers = [away.upload(), away.get(f"/v1/files/{file_id}/content")]
        deleted = away.send("DELETE", f"/v1/files/{file_id}")

    for answer in answers:
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "storage_unavailable")
        assert answer.headers["Retry-After"]
    assert deleted.status_code == 200


def test_equal_bytes_are_one_object(make: Any, object_store: ObjectStore) -> None:
    door = make()
    made = [door.file(), door.file()]
    blobs = open_blobs(door.settings)
    assert len(list(blobs.keys(before=float("inf")))) == 1

    for file_id in made:
        door.send("DELETE", f"/v1/files/{file_id}")

    assert list(blobs.keys(before=float("inf"))) == []


def sent(door: Door, upload: str, piece: bytes) -> str:
    head = b'--b\r\nContent-Disposition: form-data; name="data"; filename="part"\r\n\r\n'
    answer = door.send(
        "POST",
        f"/v1/uploads/{upload}/parts",
        data=head + piece + b"\r\n--b--\r\n",
        content_type="multipart/form-data; boundary=b",
    )
    return str((answer.json or {})["id"])


def test_an_upload_in_parts_becomes_one_object_and_leaves_no_other(make: Any) -> None:
    door = make(s3_public_endpoint_url="none")
    # The store copies the first by itself; the second is too small for that.
    pieces = [os.urandom(6 * 2**20), b"the end"]
    size = sum(map(len, pieces))
    asked = {"filename": "a.bin", "purpose": "vision", "bytes": size, "mime_type": "application/octet-stream"}
    upload = door.send("POST", "/v1/uploads", json=asked).json["id"]
    parts = [sent(door, upload, piece) for piece in pieces]

    answer = door.send("POST", f"/v1/uploads/{upload}/complete", json={"part_ids": parts})

    assert answer.status_code == 200, answer.text
    file = answer.json["file"]
    whole = door.get(f"/v1/files/{file['id']}/content").data
    assert (len(whole), hashlib.sha256(whole).digest()) == (size, hashlib.sha256(b"".join(pieces)).digest())
    assert list(open_blobs(door.settings).keys(before=time.time() + 3600)) == [file["id"]]

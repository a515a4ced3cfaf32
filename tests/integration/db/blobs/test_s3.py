"""What only a store behind a network can do, or do wrong."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from db.blobs import open_blobs, part_key
from db.blobs.copies import Copies
from db.blobs.requests import Place
from db.blobs.s3 import PART, S3Blobs
from domain.errors import TooLarge, Unavailable
from settings import Settings, environment
from support.object_store import BUCKET, ObjectStore
from support.stack import ROOT, until

LARGE = os.urandom(1024) * 1024 * 18  # two parts and a bit


@pytest.fixture
def settings(object_store: ObjectStore, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, **object_store.settings())


@pytest.fixture
def blobs(settings: Settings) -> S3Blobs:
    made = open_blobs(settings)
    assert isinstance(made, S3Blobs)
    return made


def uploads(store: ObjectStore, settings: Settings) -> list[Any]:
    """The uploads in parts that are neither complete nor ended."""
    found = store.client.list_multipart_uploads(Bucket=BUCKET, Prefix=settings.s3_prefix)
    return list(found.get("Uploads", []))


def objects(store: ObjectStore, settings: Settings) -> list[str]:
    found = store.client.list_objects_v2(Bucket=BUCKET, Prefix=settings.s3_prefix)
    return [one["Key"].removeprefix(settings.s3_prefix) for one in found.get("Contents", [])]


def test_a_large_blob_travels_in_parts_and_is_whole(
    blobs: S3Blobs, settings: Settings, object_store: ObjectStore
) -> None:
    stored = blobs.write("file-a", io.BytesIO(LARGE))

    assert stored == (len(LARGE), sha256(LARGE).hexdigest())
    with blobs.read("file-a") as stream:
        assert stream.read() == LARGE
    assert uploads(object_store, settings) == []


def test_a_large_blob_over_the_limit_leaves_neither_object_nor_parts(
    blobs: S3Blobs, settings: Settings, object_store: ObjectStore
) -> None:
    with pytest.raises(TooLarge):
        blobs.write("file-a", io.BytesIO(LARGE), limit=len(LARGE) - 1)

    assert objects(object_store, settings) == uploads(object_store, settings) == []


def test_a_blob_of_exactly_one_part_is_whole(blobs: S3Blobs) -> None:
    assert blobs.write("file-a", io.BytesIO(LARGE[:PART])).bytes == blobs.size("file-a") == PART


def test_a_reader_may_go_back_and_forth(blobs: S3Blobs) -> None:
    blobs.write("file-a", io.BytesIO(LARGE))

    with blobs.read("file-a", 10, 1_000_000) as stream:
        stream.seek(500_000)
        late = stream.read(10)
        stream.seek(0)
        early = stream.read(10)
        stream.seek(-3, os.SEEK_END)
        last = stream.read()

    assert (early, late, last) == (LARGE[10:20], LARGE[500_010:500_020], LARGE[1_000_007:1_000_010])


def test_the_store_itself_copies_large_parts(
    blobs: S3Blobs, settings: Settings, object_store: ObjectStore
) -> None:
    six = LARGE[: 6 * 1024 * 1024]
    keys = [part_key("upload-a", number) for number in range(3)]
    for key, data in zip(keys, (six, six, b"end"), strict=True):
        blobs.write(key, io.BytesIO(data))

    stored = blobs.join("file-a", keys)

    whole = six + six + b"end"
    assert stored == (len(whole), sha256(whole).hexdigest())
    with blobs.read("file-a") as stream:
        assert stream.read() == whole
    assert uploads(object_store, settings) == []


def test_a_writer_that_is_killed_leaves_nothing_to_see_and_its_parts_are_swept(
    blobs: S3Blobs, settings: Settings, object_store: ObjectStore
) -> None:
    code = "import sys; from db.blobs import open_blobs; import settings; open_blobs(settings.load()).write('file-a', sys.stdin.buffer)"
    writer = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(settings), stdin=subprocess.PIPE
    )
    assert writer.stdin is not None
    writer.stdin.write(LARGE)
    writer.stdin.flush()
    until(lambda: uploads(object_store, settings), bool, limit_s=30)

    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdin.close()

    assert objects(object_store, settings) == []
    blobs.drop_leftovers(before=0.0)
    assert len(uploads(object_store, settings)) == 1
    blobs.drop_leftovers(before=time.time() + 60)
    assert uploads(object_store, settings) == []


def test_a_link_gives_the_bytes_as_a_download_to_anybody(blobs: S3Blobs) -> None:
    blobs.write("file-a", io.BytesIO(b"<script>alert(1)</script>"))

    link = blobs.link("file-a", 'kä "t".html', 300)
    with urllib.request.urlopen(str(link)) as answer:
        told = answer.headers

        assert answer.read() == b"<script>alert(1)</script>"
    assert told["Content-Type"] == "application/octet-stream"
    assert told["Content-Disposition"] == (
        "attachment; filename=\"k? _t_.html\"; filename*=UTF-8''k%C3%A4%20%22t%22.html"
    )


def test_a_link_opens_no_other_blob(blobs: S3Blobs) -> None:
    blobs.write("file-a", io.BytesIO(b"mine"))
    blobs.write("file-b", io.BytesIO(b"another's"))

    link = str(blobs.link("file-a", "a", 300)).replace("file-a", "file-b")

    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link)


def test_links_name_the_address_that_clients_reach(settings: Settings) -> None:
    def link(public: str) -> str | None:
        values = {**vars(settings), "s3_public_endpoint_url": public}
        return open_blobs(Settings(**values)).link("file-a", "a", 300)

    assert str(link("")).startswith(settings.s3_endpoint_url)
    assert str(link("https://files.example.org")).startswith("https://files.example.org/plait/")
    assert link("none") is None


def away(place: Place, folder: Path) -> S3Blobs:
    return S3Blobs(place, prefix="", spool=folder, copies=Copies(folder, 1))


def ways_to_ask(blobs: S3Blobs) -> list[Any]:
    def local() -> None:
        with blobs.local("file-a"):
            pass

    return [
        lambda: blobs.write("file-a", io.BytesIO(b"x")),
        lambda: blobs.write("file-a", io.BytesIO(LARGE)),
        lambda: blobs.read("file-a"),
        lambda: blobs.delete("file-a"),
        lambda: blobs.delete_of("pred_a"),
        lambda: blobs.owners("pred_"),
        lambda: blobs.drop_leftovers(0.0),
        local,
    ]


def test_a_store_that_is_down_is_unavailable_whatever_is_asked(tmp_path: Path) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        place = Place(BUCKET, f"http://127.0.0.1:{unheard.getsockname()[1]}", "r", "a", "s", tries=1)
        for ask in ways_to_ask(away(place, tmp_path)):
            with pytest.raises(Unavailable) as told:
                ask()

            assert told.value.code == "storage_unavailable"


def test_a_store_that_says_nothing_holds_nobody_for_ever(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        place = Place(
            BUCKET, f"http://127.0.0.1:{deaf.getsockname()[1]}", "r", "a", "s", silence_s=0.2, tries=2
        )
        for ask in ways_to_ask(away(place, tmp_path)):
            with pytest.raises(Unavailable):
                ask()


def test_a_store_that_refuses_our_key_is_unavailable_and_tells_nobody_why(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(BUCKET, settings.s3_endpoint_url, "us-east-1", settings.s3_access_key, "wrong", tries=1)

    with pytest.raises(Unavailable) as told:
        away(place, tmp_path).write("file-a", io.BytesIO(b"x"))

    assert "wrong" not in told.value.message + caplog.text
    assert "SignatureDoesNotMatch" in caplog.text


def test_the_keys_of_the_store_are_not_in_the_words_of_the_settings(settings: Settings) -> None:
    assert settings.s3_access_key not in repr(settings)
    assert settings.s3_secret_key not in repr(settings)

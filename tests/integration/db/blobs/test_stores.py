"""What every store of bytes does, wherever it keeps them."""

import io
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from db.blobs import Blobs, FolderBlobs, open_blobs, part_key
from domain.errors import TooLarge
from settings import Settings

BYTES = bytes(range(256)) * 17


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    kept: dict[str, Any] = {}
    if request.param == "s3":
        kept = request.getfixturevalue("object_store").settings()
    return open_blobs(Settings(data=tmp_path, **kept))


def write(blobs: Blobs, key: str, data: bytes = BYTES) -> None:
    blobs.write(key, io.BytesIO(data))


def read(blobs: Blobs, key: str, start: int = 0, length: int | None = None) -> bytes:
    with blobs.read(key, start, length) as stream:
        return stream.read()


def test_what_was_written_is_read_back_and_measured(blobs: Blobs) -> None:
    stored = blobs.write("file-a", io.BytesIO(BYTES))

    assert stored == (len(BYTES), sha256(BYTES).hexdigest())
    assert (blobs.size("file-a"), read(blobs, "file-a")) == (len(BYTES), BYTES)


@pytest.mark.parametrize(("start", "length"), [(0, 1), (100, 1000), (4351, None), (4350, 100), (10, 0)])
def test_a_part_of_a_blob_is_read(blobs: Blobs, start: int, length: int | None) -> None:
    write(blobs, "file-a")

    assert read(blobs, "file-a", start, length) == BYTES[start:][:length]


def test_a_blob_that_is_too_large_leaves_what_was_there(blobs: Blobs) -> None:
    write(blobs, "file-a", b"before")

    with pytest.raises(TooLarge):
        blobs.write("file-a", io.BytesIO(BYTES), limit=len(BYTES) - 1)

    assert read(blobs, "file-a") == b"before"


def test_a_stream_that_breaks_leaves_nothing(blobs: Blobs) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise ConnectionError("gone")
            return super().read(100)

    with pytest.raises(ConnectionError):
        blobs.write("file-a", Broken(BYTES))

    with pytest.raises(FileNotFoundError):
        blobs.size("file-a")


def test_what_is_not_there_is_told_by_every_way_to_read(blobs: Blobs) -> None:
    with pytest.raises(FileNotFoundError):
        blobs.read("file-a")
    with pytest.raises(FileNotFoundError):
        blobs.size("file-a")
    with pytest.raises(FileNotFoundError):
        with blobs.local("file-a"):
            pass


def test_a_deleted_blob_is_gone_and_may_be_deleted_twice(blobs: Blobs) -> None:
    write(blobs, "file-a")

    blobs.delete("file-a")
    blobs.delete("file-a")

    with pytest.raises(FileNotFoundError):
        blobs.size("file-a")


def test_parts_are_joined_in_their_order_and_stay(blobs: Blobs) -> None:
    keys = [part_key("upload-a", number) for number in range(3)]
    for key, data in zip(keys, (b"one", b"", BYTES), strict=True):
        write(blobs, key, data)

    stored = blobs.join("file-a", [keys[2], keys[0], keys[1], keys[0]])

    whole = BYTES + b"oneone"
    assert stored == (len(whole), sha256(whole).hexdigest())
    assert (read(blobs, "file-a"), read(blobs, keys[0])) == (whole, b"one")


def test_a_join_of_a_part_that_is_gone_leaves_nothing(blobs: Blobs) -> None:
    write(blobs, part_key("upload-a", 0))

    with pytest.raises(FileNotFoundError):
        blobs.join("file-a", [part_key("upload-a", 0), part_key("upload-a", 1)])

    with pytest.raises(FileNotFoundError):
        blobs.size("file-a")


def test_a_blob_is_a_file_of_this_machine_while_it_is_needed(blobs: Blobs) -> None:
    write(blobs, "file-a")

    with blobs.local("file-a") as path:
        assert path.is_absolute()
        assert path.read_bytes() == BYTES


def test_many_that_need_the_same_blob_at_once_all_get_it(blobs: Blobs) -> None:
    write(blobs, "file-a")
    found: list[bytes] = []

    def fetch() -> None:
        with blobs.local("file-a") as path:
            found.append(path.read_bytes())

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [BYTES] * 6


def test_parts_are_known_by_their_owner_and_go_with_it(blobs: Blobs) -> None:
    for key in (part_key("pred_a", 0), part_key("pred_a", 11), part_key("pred_b", 0), "file-a"):
        write(blobs, key)

    assert sorted(blobs.owners("pred_")) == ["pred_a", "pred_b"]
    blobs.delete_of("pred_a")

    assert sorted(blobs.owners("pred_")) == ["pred_b"]
    assert list(blobs.keys(before=float("inf"))) == ["file-a"]


def test_what_a_stranger_put_beside_the_blobs_is_none_of_them(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    write(blobs, "file-a")
    write(blobs, part_key("pred_a", 0))
    for name in ("Thumbs.db", "0-of-pred_a.bak", "a copy"):
        (blobs.path("file-a").parent / name).write_bytes(b"x")

    assert list(blobs.keys(before=float("inf"))) == ["file-a"]
    assert sorted(blobs.owners("pred_")) == ["pred_a"]


def test_blobs_that_came_lately_are_not_among_the_old(blobs: Blobs) -> None:
    write(blobs, "file-a")

    assert list(blobs.keys(before=0.0)) == []


@pytest.mark.parametrize("key", ["../file-a", "a/b", "", ".hidden", "x" * 81])
def test_what_is_no_key_is_refused(blobs: Blobs, key: str) -> None:
    with pytest.raises(ValueError, match="not a blob key"):
        write(blobs, key)

"""Models: listed, deleted, and fetched as folders that are whole or not there."""

import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from plait import LocalFileError, PlaitAPIError, PlaitConnectionError
from support.scripted import Answer, refusal

MODEL = "ft:late-fusion:default:digits:1a2b"
ROUTE = f"GET /models/{MODEL}/download"
FILES = {
    "config.json": b"{}",
    "encoders/image/config.json": b"[]",
    "model.safetensors": bytes(range(256)) * 99,
}


def packed(write: Callable[[zipfile.ZipFile], object]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        write(archive)
    return buffer.getvalue()


def good() -> bytes:
    return packed(lambda archive: [archive.writestr(name, data) for name, data in FILES.items()])


def link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("outside")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc")


def twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("a", b"1")
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a", b"2")


def found(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_model_is_fetched_as_a_folder(client, server, tmp_path):
    server.on(ROUTE, Answer(200, good()))
    seen: list[tuple[int, int]] = []

    folder = client.models.download(
        MODEL, tmp_path / "new" / "digits", on_progress=lambda *at: seen.append(at)
    )

    assert folder == tmp_path / "new" / "digits"
    assert found(folder) == FILES
    assert os.listdir(tmp_path / "new") == ["digits"]
    assert seen[-1] == (len(good()), len(good()))


def test_an_empty_folder_is_filled_and_a_full_one_is_left_alone(client, server, tmp_path):
    server.on(ROUTE, Answer(200, good()))
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")

    client.models.download(MODEL, tmp_path / "empty")
    for taken in ("full", "file"):
        with pytest.raises(LocalFileError, match="there already"):
            client.models.download(MODEL, tmp_path / taken)

    assert found(tmp_path / "empty") == FILES
    assert found(tmp_path / "full") == {"mine": b"x"}
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("hostile", "said"),
    [
        (packed(lambda a: (a.writestr("ok", b""), a.writestr("../../evil", b"x"))), "leads out"),
        (packed(lambda a: a.writestr("/etc/evil", b"x")), "leads out"),
        (packed(lambda a: a.writestr("C:evil", b"x")), "leads out"),
        (packed(lambda a: a.writestr("a\\..\\evil", b"x")), "leads out"),
        (packed(link), "no regular file"),
        (packed(twice), "comes twice"),
        (packed(lambda a: (a.writestr("a", b"x"), a.writestr("a/b", b"x"))), "comes twice"),
        (good().replace(b"PK\x03\x04", b"PK\x03\x05"), "cannot be unpacked"),
        (good()[: len(good()) // 2], "cannot be unpacked"),
        (b"<html>", "cannot be unpacked"),
        (b"", "cannot be unpacked"),
    ],
)
def test_a_hostile_or_broken_zip_leaves_nothing_behind(client, server, tmp_path, hostile, said):
    server.on(ROUTE, Answer(200, hostile))

    with pytest.raises(LocalFileError, match=said):
        client.models.download(MODEL, tmp_path / "in" / "digits")

    assert os.listdir(tmp_path / "in") == []
    assert os.listdir(tmp_path) == ["in"]


def test_wrong_bytes_are_found_by_their_checksum(client, server, tmp_path):
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("model.safetensors", b"weights")
    server.on(ROUTE, Answer(200, stored.getvalue().replace(b"weights", b"wrongly")))

    with pytest.raises(LocalFileError, match="CRC"):
        client.models.download(MODEL, tmp_path / "digits")

    assert os.listdir(tmp_path) == []


def test_a_fetch_that_breaks_leaves_nothing_behind(client, server, tmp_path):
    server.on(ROUTE, Answer(200, good()[:100], {"content-length": "100000"}))

    with pytest.raises(PlaitConnectionError, match="broke"):
        client.models.download(MODEL, tmp_path / "digits")

    assert os.listdir(tmp_path) == []


def test_a_refused_fetch_tells_the_servers_reason(client, server, tmp_path):
    server.on(ROUTE, refusal(404, "model_not_found", "No such model."))

    with pytest.raises(PlaitAPIError, match="No such model"):
        client.models.download(MODEL, tmp_path / "digits")


def test_a_model_is_deleted_by_its_whole_id(client, server):
    server.on(f"DELETE /models/{MODEL}", {"id": MODEL, "object": "model", "deleted": True})

    client.models.delete(MODEL)

    assert server.asked[0].method == "DELETE"

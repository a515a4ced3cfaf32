"""Sending and fetching files."""

import email
import io
import json
import os
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from plait import LocalFileError, PlaitAPIError, PlaitConnectionError
from support.scripted import Answer, Asked, page, refusal

FILE = {
    "id": "file-1",
    "object": "file",
    "bytes": 3,
    "filename": "data.zip",
    "purpose": "fine-tune",
    "rows": 2,
}


def parts(asked: Asked) -> dict[str, Message]:
    """The parts of a multipart body by name."""
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + asked.body)
    return {str(p.get_param("name", header="content-disposition")): p for p in message.get_payload()}


def data_set(folder: Path) -> Path:
    (folder / "media").mkdir(parents=True)
    (folder / "metadata.jsonl").write_text('{"file_name": "media/a.png", "label": "x"}\n' * 50)
    (folder / "media" / "a.png").write_bytes(b"\x89PNG" + bytes(2000))
    return folder


def sent_zip(asked: Asked) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(parts(asked)["file"].get_payload(decode=True)))


def test_a_file_is_sent_with_its_name_purpose_and_schema(client, server, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "hello", "label": "x"}\n')
    server.on("POST /files", FILE)
    schema = {"columns": {"text": {"type": "text"}}, "label": "label"}

    file = client.files.push(tmp_path / "rows.jsonl", schema=schema)

    sent = parts(server.asked[0])
    assert sent["file"].get_filename() == "rows.jsonl"
    assert sent["file"].get_payload(decode=True) == (tmp_path / "rows.jsonl").read_bytes()
    assert sent["purpose"].get_payload() == "fine-tune"
    assert json.loads(sent["schema"].get_payload()) == schema
    assert (file.id, file.filename, file.bytes, file.raw["rows"]) == ("file-1", "data.zip", 3, 2)


def test_a_folder_is_sent_as_a_zip_of_itself(client, server, tmp_path):
    folder = data_set(tmp_path / "digits")
    server.on("POST /files", FILE)

    client.files.push(folder)

    assert parts(server.asked[0])["file"].get_filename() == "digits.zip"
    with sent_zip(server.asked[0]) as archive:
        assert archive.namelist() == ["media/a.png", "metadata.jsonl"]
        assert archive.read("metadata.jsonl") == (folder / "metadata.jsonl").read_bytes()


def test_the_current_folder_is_sent_under_its_own_name(client, server, tmp_path, monkeypatch):
    monkeypatch.chdir(data_set(tmp_path / "digits"))
    server.on("POST /files", FILE)

    client.files.push(".")

    assert parts(server.asked[0])["file"].get_filename() == "digits.zip"


def test_compressed_media_are_stored_and_text_is_deflated(client, server, tmp_path):
    server.on("POST /files", FILE)

    client.files.push(data_set(tmp_path / "digits"))

    with sent_zip(server.asked[0]) as archive:
        assert archive.getinfo("media/a.png").compress_type == zipfile.ZIP_STORED
        assert archive.getinfo("metadata.jsonl").compress_type == zipfile.ZIP_DEFLATED


def test_links_and_hidden_files_are_not_sent_and_links_are_told(client, server, tmp_path, caplog):
    folder = data_set(tmp_path / "digits")
    (tmp_path / "secret").write_text("secret")
    (folder / "media" / "link.png").symlink_to(tmp_path / "secret")
    (folder / "outside").symlink_to(tmp_path)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    os.mkfifo(folder / "pipe")
    server.on("POST /files", FILE)

    client.files.push(folder)

    with sent_zip(server.asked[0]) as archive:
        assert archive.namelist() == ["media/a.png", "metadata.jsonl"]
    assert [record.args[0].rsplit("/", 1)[-1] for record in caplog.records] == ["link.png", "outside", "pipe"]


def test_the_same_folder_gives_the_same_bytes(client, server, tmp_path):
    folder = data_set(tmp_path / "digits")
    server.on("POST /files", FILE)

    client.files.push(folder)
    os.utime(folder / "metadata.jsonl", (1, 1))
    client.files.push(folder)

    first, second = (parts(asked)["file"].get_payload(decode=True) for asked in server.asked)
    assert first == second


def test_progress_ends_with_all_bytes_sent(client, server, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(bytes(200_000))
    server.on("POST /files", FILE)
    seen: list[tuple[int, int]] = []

    client.files.push(tmp_path / "a.jsonl", on_progress=lambda done, total: seen.append((done, total)))

    assert len(seen) > 2
    assert seen[-1] == (200_000, 200_000)


def test_what_cannot_be_sent_is_told_before_any_request(client, server, tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(LocalFileError, match="absent"):
        client.files.push(tmp_path / "absent")
    with pytest.raises(LocalFileError, match="holds no files"):
        client.files.push(tmp_path / "empty")

    assert server.asked == []


def test_a_file_name_that_is_not_utf8_is_told(client, tmp_path):
    folder = data_set(tmp_path / "digits")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).write_text("x")

    with pytest.raises(LocalFileError, match="not UTF-8"):
        client.files.push(folder)


def test_files_are_listed_page_by_page_up_to_the_limit(client, server):
    first, second = [{"id": f"file-{n}"} for n in (3, 2)], [{"id": "file-1"}, {"id": "file-0"}]
    server.on("GET /files", page(first, more=True), page(second, more=True))

    found = [file.id for file in client.files.list(limit=3, purpose="fine-tune")]

    assert found == ["file-3", "file-2", "file-1"]
    assert [asked.query for asked in server.asked] == [
        {"purpose": "fine-tune", "limit": "3"},
        {"purpose": "fine-tune", "limit": "1", "after": "file-2"},
    ]


def test_an_empty_page_ends_a_list_whatever_has_more_says(client, server):
    server.on("GET /files", page([], more=True))

    assert list(client.files.list()) == []


def test_a_file_is_shown_and_deleted(client, server):
    server.on("GET /files/file-1", FILE)
    server.on("DELETE /files/file-1", {"id": "file-1", "object": "file", "deleted": True})

    assert client.files.get("file-1").purpose == "fine-tune"
    client.files.delete("file-1")

    assert server.asked[-1].method == "DELETE"


@pytest.mark.parametrize("call", ["get", "delete", "content"])
def test_an_empty_id_does_not_reach_the_whole_list(client, server, call):
    with pytest.raises(ValueError, match="empty"):
        getattr(client.files, call)("")

    assert server.asked == []


def test_an_id_cannot_leave_its_route(client, server):
    with pytest.raises(PlaitAPIError):
        client.files.get("../models?x=#")

    assert server.asked[0].path == "/v1/files/..%2Fmodels%3Fx%3D%23"


def test_content_is_the_raw_bytes_and_a_download_is_the_same(client, server, tmp_path):
    server.on("GET /files/file-1/content", Answer(200, bytes(range(256)) * 1000))
    seen: list[tuple[int, int]] = []

    path = client.files.download("file-1", tmp_path / "out.bin", on_progress=lambda *at: seen.append(at))

    assert path.read_bytes() == client.files.content("file-1") == bytes(range(256)) * 1000
    assert seen[-1] == (256_000, 256_000)


def test_a_download_that_breaks_leaves_nothing_behind(client, server, tmp_path):
    server.on("GET /files/file-1/content", Answer(200, b"half", {"content-length": "1000"}))

    with pytest.raises(PlaitConnectionError, match="broke"):
        client.files.download("file-1", tmp_path / "out.bin")

    assert list(tmp_path.iterdir()) == []


def test_a_refused_download_tells_the_servers_reason(client, server, tmp_path):
    server.on("GET /files/file-1/content", refusal(404, "not_found", "no file file-1"))

    with pytest.raises(PlaitAPIError, match="no file file-1"):
        client.files.download("file-1", tmp_path / "out.bin")


def test_a_download_to_where_nothing_can_be_written_is_told(client, server, tmp_path):
    server.on("GET /files/file-1/content", Answer(200, b"x"))

    with pytest.raises(LocalFileError, match="cannot be written"):
        client.files.download("file-1", tmp_path / "absent" / "out.bin")

"""Files over HTTP: bytes and rows stay together, and nobody reads another's."""

import hashlib
import json

import pytest
from sqlalchemy import update

from db.tables import Quota
from support.door import JSONL, Door


def test_an_upload_is_described_in_openais_words_and_ours(door: Door) -> None:
    answer = door.upload(JSONL, name="train.jsonl")

    file = answer.json
    assert answer.status_code == 200
    assert file is not None
    assert file["id"].startswith("file-")
    assert isinstance(file["created_at"], int)
    assert {k: v for k, v in file.items() if k not in ("id", "created_at")} == {
        "object": "file",
        "bytes": len(JSONL),
        "expires_at": None,
        "filename": "train.jsonl",
        "purpose": "fine-tune",
        "sha256": hashlib.sha256(JSONL).hexdigest(),
        "status": "uploaded",
        "status_details": None,
        "rows": None,
        "columns": None,
        "issues": None,
        "schema": None,
    }


def test_what_was_uploaded_comes_back_byte_for_byte_as_an_attachment(door: Door) -> None:
    content = bytes(range(256)) * 20
    file_id = door.file(content=content, name="bilder zürich.zip")

    answer = door.get(f"/v1/files/{file_id}/content")

    assert answer.data == content
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_a_range_of_a_file_can_be_read(door: Door) -> None:
    file_id = door.file(content=b"0123456789")

    part = door.get(f"/v1/files/{file_id}/content", headers={"Range": "bytes=2-4"})
    beyond = door.get(f"/v1/files/{file_id}/content", headers={"Range": "bytes=90-"})

    assert (part.status_code, part.data) == (206, b"234")
    assert beyond.status_code == 416
    assert beyond.json is not None
    assert beyond.json["error"]["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        # As quoted on the wire: `C:\\data\\train.jsonl`.
        (r"C:\\data\\train.jsonl", "train.jsonl"),
        ("a\tb.zip", "ab.zip"),
        ("..", "upload"),
        ("x" * 400 + ".zip", "x" * 251 + ".zip"),
    ],
)
def test_a_file_name_is_only_a_name(door: Door, sent: str, kept: str) -> None:
    answer = door.upload(name=sent)

    assert answer.json is not None
    assert answer.json["filename"] == kept


def test_a_schema_is_kept_and_echoed(door: Door) -> None:
    schema = {"columns": {"photo": {"type": "image"}}, "label": "kind"}

    answer = door.upload(fields={"schema": json.dumps(schema)})

    assert answer.json is not None
    assert answer.json["schema"] == schema


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "world-domination"}, "purpose"),
        ({"schema": '{"columns": {"photo": {"type": "picture"}}}'}, "schema.columns.photo.type"),
        ({"schema": '{"kolumns": {}}'}, "schema.kolumns"),
        ({"schema": "{"}, "schema"),
        ({"schema": '{"label": "\\u0000"}'}, "schema"),
        ({"expires_after": "3600"}, "expires_after"),
    ],
)
def test_a_wrong_field_of_the_form_is_named_and_nothing_is_kept(
    door: Door, fields: dict[str, str], param: str
) -> None:
    answer = door.upload(fields=fields)

    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"]["param"] == param
    assert door.blobs() == []


def test_an_unknown_purpose_is_told_what_is_allowed(door: Door) -> None:
    answer = door.upload(fields={"purpose": "assistants"})

    assert answer.json is not None
    assert "'fine-tune'" in answer.json["error"]["message"]


def test_an_empty_file_is_refused(door: Door) -> None:
    answer = door.upload(b"")

    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"]["code"] == "empty_file"


def test_a_form_without_a_file_is_refused(door: Door) -> None:
    answer = door.send(
        "POST", "/v1/files", data={"purpose": "fine-tune"}, content_type="multipart/form-data; boundary=x"
    )

    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"]["param"] == "file"


def test_json_instead_of_a_form_is_a_415(door: Door) -> None:
    assert door.send("POST", "/v1/files", json={"purpose": "fine-tune"}).status_code == 415


def test_a_file_over_the_limit_is_a_413_and_leaves_nothing(door: Door) -> None:
    answer = door.upload(b"x" * 100_001)

    assert answer.status_code == 413
    assert door.blobs() == []


def test_a_file_over_the_tenants_share_is_a_429_and_leaves_nothing(door: Door) -> None:
    with door.database.transaction() as session:
        session.execute(update(Quota).values(max_bytes=10))

    answer = door.upload()

    assert answer.status_code == 429
    assert answer.headers["Retry-After"]
    assert door.blobs() == []


def test_the_same_key_and_file_are_stored_once(door: Door) -> None:
    first = door.upload(headers={"Idempotency-Key": "k"})

    second = door.upload(headers={"Idempotency-Key": "k"})

    assert first.json is not None
    assert second.json == first.json
    assert len(door.blobs()) == 1


def test_the_same_key_with_another_file_is_a_422(door: Door) -> None:
    door.upload(headers={"Idempotency-Key": "k"})

    answer = door.upload(b"another", headers={"Idempotency-Key": "k"})

    assert answer.status_code == 422
    assert len(door.blobs()) == 1


def test_files_are_listed_page_by_page_without_gap_or_double(door: Door) -> None:
    made = [door.file() for _ in range(5)]

    seen, after = [], ""
    while True:
        page = door.get("/v1/files", query_string={"limit": 2, "after": after}).json
        assert page is not None
        seen += [file["id"] for file in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break

    assert sorted(seen) == sorted(made)


def test_the_list_can_be_turned_round_and_filtered(door: Door) -> None:
    first, second = door.file(), door.file(fields={"purpose": "batch"})

    oldest = door.get("/v1/files", query_string={"order": "asc"}).json
    batches = door.get("/v1/files", query_string={"purpose": "batch"}).json

    assert oldest is not None
    assert batches is not None
    assert [file["id"] for file in oldest["data"]] == [first, second]
    assert [file["id"] for file in batches["data"]] == [second]


def test_a_deleted_file_is_gone_with_its_bytes(door: Door) -> None:
    file_id = door.file()

    answer = door.send("DELETE", f"/v1/files/{file_id}")

    assert answer.json == {"id": file_id, "object": "file", "deleted": True}
    assert door.get(f"/v1/files/{file_id}").status_code == 404
    assert door.get(f"/v1/files/{file_id}/content").status_code == 404
    assert door.blobs() == []


def test_a_file_that_a_job_still_reads_is_not_deleted(door: Door) -> None:
    file_id = door.file()
    door.submit({"training_file": file_id})

    answer = door.send("DELETE", f"/v1/files/{file_id}")

    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    assert len(door.blobs()) == 1


def test_another_tenants_file_is_as_absent_as_none(door: Door) -> None:
    file_id, stranger = door.file(), door.new_key("b")

    answers = [
        door.send(method, f"/v1/files/{file_id}{rest}", key=stranger)
        for method, rest in [("GET", ""), ("GET", "/content"), ("DELETE", "")]
    ]
    cursor = door.get("/v1/files", query_string={"after": file_id}, key=stranger)
    mine = door.get("/v1/files", key=stranger).json

    assert [answer.status_code for answer in [*answers, cursor]] == [404] * 4
    assert mine is not None
    assert mine["data"] == []

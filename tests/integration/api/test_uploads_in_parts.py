"""Uploads in parts over HTTP: what arrives becomes one file, once, or is refused with a reason."""

import hashlib
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from api import completion
from db.blobs import FolderBlobs
from db.session import Database
from db.tables import File, Quota, Upload
from domain import uploads as limits
from domain.errors import Unavailable
from settings import Settings
from support.door import Door
from worker.upkeep import uploads as upkeep

BODY = {"bytes": 10, "filename": "rows.jsonl", "mime_type": "application/jsonl", "purpose": "fine-tune"}
WHOLE = b"0123456789"


@pytest.fixture
def door(database: Database, tmp_path: Path) -> Door:
    return Door(database, Settings(data=tmp_path / "data", max_file_bytes=1_000_000))


def create(door: Door, *, headers: Any = None, key: str | None = None, **changed: Any) -> TestResponse:
    return door.send("POST", "/v1/uploads", json={**BODY, **changed}, headers=headers, key=key)


def begun(door: Door, **changed: Any) -> str:
    answer = create(door, **changed)
    assert answer.status_code == 200, answer.text
    return str(answer.json["id"])  # type: ignore[index]


def send(
    door: Door, upload: str, data: bytes, *, field: str = "data", key: str | None = None
) -> TestResponse:
    head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="part"\r\n\r\n'
    return door.send(
        "POST",
        f"/v1/uploads/{upload}/parts",
        data=head.encode() + data + b"\r\n--b--\r\n",
        content_type="multipart/form-data; boundary=b",
        key=key,
    )


def sent(door: Door, upload: str, *pieces: bytes) -> list[str]:
    answers = [send(door, upload, piece) for piece in pieces]
    assert [a.status_code for a in answers] == [200] * len(pieces), answers[-1].text
    return [str(a.json["id"]) for a in answers]  # type: ignore[index]


def complete(door: Door, upload: str, parts: list[str], *, headers: Any = None, **more: Any) -> TestResponse:
    return door.send(
        "POST", f"/v1/uploads/{upload}/complete", json={"part_ids": parts, **more}, headers=headers
    )


def cancel(door: Door, upload: str) -> TestResponse:
    return door.send("POST", f"/v1/uploads/{upload}/cancel")


def content(door: Door, answer: TestResponse) -> bytes:
    assert answer.status_code == 200, answer.text
    return bytes(door.get(f"/v1/files/{answer.json['file']['id']}/content").data)  # type: ignore[index]


def refused(answer: TestResponse) -> tuple[int, str]:
    assert answer.json is not None
    return answer.status_code, answer.json["error"]["code"]


def sweep(door: Door) -> None:
    upkeep.sweep(door.database, FolderBlobs(door.settings.data / "blobs"))


def change(door: Door, upload: str, **values: Any) -> None:
    with door.database.transaction() as session:
        session.execute(update(Upload).where(Upload.id == upload).values(**values))


def test_an_upload_is_described_in_openais_words_and_ours(door: Door) -> None:
    upload = create(door, schema={"label": "x"}).json

    assert upload is not None
    assert upload["id"].startswith("upload_")
    assert upload["expires_at"] - upload["created_at"] == 24 * 3600
    assert {k: v for k, v in upload.items() if k not in ("id", "created_at", "expires_at", "schema")} == {
        "object": "upload",
        **BODY,
        "status": "pending",
        "received_bytes": 0,
        "parts": 0,
        "file": None,
    }
    assert upload["schema"]["label"] == "x"


def test_parts_that_came_in_any_order_become_one_file_in_the_order_that_is_named(door: Door) -> None:
    upload = begun(door, schema={"label": "x"})
    last, first, middle = sent(door, upload, b"789", b"0123", b"456")

    answer = complete(door, upload, [first, middle, last], md5=hashlib.md5(WHOLE).hexdigest().upper())

    assert content(door, answer) == WHOLE
    done = answer.json
    assert done is not None
    assert done["status"] == "completed"
    assert done["file"]["sha256"] == hashlib.sha256(WHOLE).hexdigest()
    assert (done["file"]["filename"], done["file"]["schema"]["label"]) == ("rows.jsonl", "x")
    assert door.get(f"/v1/files/{done['file']['id']}").json == done["file"]
    assert len(door.blobs()) == 1


def test_a_part_tells_its_size_and_hash_and_the_upload_what_has_arrived(door: Door) -> None:
    upload = begun(door)
    part = send(door, upload, b"0123").json
    send(door, upload, b"0123")

    first = door.get(f"/v1/uploads/{upload}/parts?limit=1").json
    assert part is not None
    assert first is not None
    rest = door.get(f"/v1/uploads/{upload}/parts?after={first['last_id']}").json
    stands = door.get(f"/v1/uploads/{upload}").json

    assert part.items() >= {
        "object": "upload.part", "upload_id": upload, "bytes": 4, "sha256": hashlib.sha256(b"0123").hexdigest(),
    }.items()  # fmt: skip
    assert (first["data"], first["has_more"]) == ([part], True)
    assert rest is not None
    assert (len(rest["data"]), rest["has_more"]) == (1, False)
    assert stands is not None
    assert (stands["received_bytes"], stands["parts"]) == (8, 2)


def test_a_part_that_was_sent_twice_counts_once_and_what_is_not_named_goes(door: Door) -> None:
    upload = begun(door)
    one, _again, two = sent(door, upload, b"01234", b"01234", b"56789")

    assert content(door, complete(door, upload, [one, two])) == WHOLE
    assert len(door.blobs()) == 1
    assert door.get(f"/v1/uploads/{upload}/parts").json["data"] == []  # type: ignore[index]


def test_completed_again_it_answers_the_same_file(door: Door) -> None:
    upload = begun(door)
    parts = sent(door, upload, b"01234", b"56789")

    first, second = complete(door, upload, parts), complete(door, upload, parts)
    other = complete(door, upload, parts[::-1])

    assert first.json == second.json
    assert refused(other) == (409, "upload_not_pending")
    assert other.headers["x-should-retry"] == "false"
    assert len(door.get("/v1/files").json["data"]) == 1  # type: ignore[index]


def test_the_same_key_begins_one_upload_and_another_body_is_refused(door: Door) -> None:
    headers = {"Idempotency-Key": "k"}

    first, again = create(door, headers=headers), create(door, headers=headers)
    other = create(door, headers=headers, bytes=11)

    assert first.json == again.json
    assert refused(other) == (422, "idempotency_key_reused")


def test_the_key_of_a_completion_stands_for_its_parts(door: Door) -> None:
    upload, headers = begun(door), {"Idempotency-Key": "k"}
    parts = sent(door, upload, b"01234", b"56789")

    first = complete(door, upload, parts, headers=headers)

    assert complete(door, upload, parts, headers=headers).json == first.json
    assert refused(complete(door, upload, parts[::-1], headers=headers)) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"bytes": 0}, (400, "invalid_spec")),
        ({"bytes": 1_000_001}, (413, "too_large")),
        ({"purpose": "assistants"}, (400, "invalid_spec")),
        ({"filename": ""}, (400, "invalid_spec")),
        ({"mime_type": "application/pdf"}, (415, "unsupported_media_type")),
        ({"mime_type": "image/png"}, (415, "unsupported_media_type")),
        ({"mime_type": "application/octet-stream", "filename": "a.tar.gz"}, (415, "unsupported_media_type")),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, (400, "invalid_spec")),
        ({"colour": "red"}, (400, "invalid_spec")),
    ],
)
def test_an_upload_that_could_not_end_well_is_refused_at_once(
    door: Door, changed: dict[str, Any], told: tuple[int, str]
) -> None:
    assert refused(create(door, **changed)) == told


def test_an_upload_needs_room_while_it_is_pending_and_gives_it_back(door: Door) -> None:
    with door.database.transaction() as session:
        session.execute(update(Quota).values(max_bytes=15))

    upload = begun(door)
    assert refused(create(door)) == (429, "quota_exceeded")
    assert refused(door.upload(WHOLE)) == (429, "quota_exceeded")
    done = complete(door, upload, sent(door, upload, WHOLE))
    assert done.status_code == 200
    assert refused(create(door)) == (429, "quota_exceeded")
    door.send("DELETE", f"/v1/files/{done.json['file']['id']}")  # type: ignore[index]

    cancel(door, begun(door))

    assert create(door).status_code == 200


def test_an_upload_that_is_joined_past_its_time_keeps_its_room(door: Door) -> None:
    with door.database.transaction() as session:
        session.execute(update(Quota).values(max_bytes=15))
    upload = begun(door)

    change(door, upload, joining="file-other", joining_until=1e12, expires_at=1.0)

    assert refused(create(door)) == (429, "quota_exceeded")


def test_a_completion_without_room_keeps_the_parts(door: Door) -> None:
    upload = begun(door)
    parts = sent(door, upload, WHOLE)
    with door.database.transaction() as session:
        session.execute(update(Quota).values(max_bytes=5))

    refusal = complete(door, upload, parts)
    with door.database.transaction() as session:
        session.execute(update(Quota).values(max_bytes=50))

    assert refused(refusal) == (429, "quota_exceeded")
    assert content(door, complete(door, upload, parts)) == WHOLE


def test_a_server_that_joins_as_much_as_it_can_asks_for_patience_and_keeps_the_parts(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(completion, "_AT_ONCE", threading.BoundedSemaphore(1))
    upload = begun(door)
    parts = sent(door, upload, WHOLE)

    with completion._AT_ONCE:
        busy = complete(door, upload, parts)

    assert refused(busy) == (503, "uploads_busy")
    assert "Retry-After" in busy.headers
    assert content(door, complete(door, upload, parts)) == WHOLE


def test_bytes_that_do_not_add_up_are_refused_with_both_numbers_and_may_be_mended(door: Door) -> None:
    upload = begun(door)
    [first] = sent(door, upload, b"0123")

    refusal = complete(door, upload, [first])
    [rest] = sent(door, upload, b"456789")

    assert refused(refusal) == (400, "size_mismatch")
    assert "4 bytes" in refusal.text
    assert "10" in refusal.text
    assert content(door, complete(door, upload, [first, rest])) == WHOLE


def test_a_wrong_checksum_is_refused_and_the_parts_are_kept(door: Door) -> None:
    upload = begun(door)
    parts = sent(door, upload, b"01234", b"56789")

    wrong = complete(door, upload, parts, md5="0" * 32)

    assert refused(wrong) == (400, "checksum_mismatch")
    assert len(door.blobs()) == 2
    assert refused(complete(door, upload, parts, md5="none")) == (400, "invalid_spec")
    assert content(door, complete(door, upload, parts, md5=hashlib.md5(WHOLE).hexdigest())) == WHOLE


def test_parts_that_are_named_twice_or_are_not_this_uploads_are_refused(door: Door) -> None:
    upload, other = begun(door), begun(door)
    [half], [foreign] = sent(door, upload, b"01234"), sent(door, other, b"56789")

    assert refused(complete(door, upload, [half, half])) == (400, "duplicate_part")
    assert refused(complete(door, upload, [half, foreign])) == (404, "part_not_found")
    assert refused(complete(door, upload, [half, "part_none"])) == (404, "part_not_found")
    assert refused(complete(door, upload, [])) == (400, "invalid_spec")
    assert refused(door.get(f"/v1/uploads/{upload}/parts?after={foreign}")) == (404, "part_not_found")


def test_another_tenants_upload_is_not_there(door: Door) -> None:
    upload, key = begun(door), door.new_key("b")
    parts = sent(door, upload, WHOLE)
    path = f"/v1/uploads/{upload}"

    answers = [
        door.get(path, key=key),
        door.get(f"{path}/parts", key=key),
        send(door, upload, b"x", key=key),
        door.send("POST", f"{path}/complete", json={"part_ids": parts}, key=key),
        door.send("POST", f"{path}/cancel", key=key),
    ]

    assert [refused(a) for a in answers] == [(404, "upload_not_found")] * 5
    assert len(door.blobs()) == 1
    assert complete(door, upload, parts).status_code == 200


@pytest.mark.parametrize("end", ["cancelled", "completed", "expired"])
def test_what_is_over_takes_no_part_and_no_other_end(door: Door, end: str) -> None:
    upload = begun(door)
    parts = sent(door, upload, WHOLE)
    if end == "cancelled":
        assert cancel(door, upload).json["status"] == "cancelled"  # type: ignore[index]
    elif end == "completed":
        complete(door, upload, parts)
    else:
        change(door, upload, expires_at=1.0)

    late = send(door, upload, b"x")
    assert refused(late) == (409, "upload_not_pending")
    assert late.headers["x-should-retry"] == "false"
    assert door.get(f"/v1/uploads/{upload}").json["status"] == end  # type: ignore[index]
    if end != "completed":
        assert refused(complete(door, upload, parts)) == (409, "upload_not_pending")
    if end != "cancelled":
        assert refused(cancel(door, upload)) == (409, "upload_not_pending")


def test_a_cancel_that_is_sent_again_is_answered_the_same(door: Door) -> None:
    upload = begun(door)
    sent(door, upload, WHOLE)

    assert cancel(door, upload).json == cancel(door, upload).json
    assert door.blobs() == []


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ([("data", b"")], "empty_part"),
        ([("other", b"x")], "invalid_form"),
        ([("data", b"x"), ("data", b"y")], "invalid_form"),
    ],
    ids=["empty", "another name", "two"],
)
def test_a_form_that_is_no_part_is_refused_and_leaves_nothing(
    door: Door, form: list[tuple[str, bytes]], told: str
) -> None:
    path = f"/v1/uploads/{begun(door)}/parts"

    data = MultiDict([(name, (io.BytesIO(content), "part")) for name, content in form])
    answer = door.send("POST", path, data=data, content_type="multipart/form-data")

    assert refused(answer) == (400, told)
    assert refused(door.send("POST", path, data=b"x")) == (415, "unsupported_media_type")
    cut = door.send(
        "POST", path, data=b"--b\r\nContent-Disposition: form-data; name=data\r\n\r\nxy",
        content_type="multipart/form-data; boundary=b",
    )  # fmt: skip
    assert refused(cut) == (400, "broken_body")
    assert door.blobs() == []


def test_a_part_that_is_too_large_is_refused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.uploads_in_parts.PART_BYTES", 1000)
    upload = begun(door, bytes=5000)

    assert refused(send(door, upload, bytes(1001))) == (413, "too_large")
    assert refused(send(door, upload, bytes(3_000_000))) == (413, "too_large")
    assert send(door, upload, bytes(1000)).status_code == 200
    assert len(door.blobs()) == 1


def test_an_upload_takes_no_endless_bytes_or_parts(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begun(door)
    sent(door, upload, WHOLE, WHOLE, WHOLE)

    assert refused(send(door, upload, b"x")) == (413, "too_large")
    monkeypatch.setattr("db.uploads.MOST_PARTS", 1)
    second = begun(door)
    sent(door, second, b"x")
    assert refused(send(door, second, b"x")) == (400, "too_many_parts")
    assert len(door.blobs()) == 4


def test_two_completions_at_once_make_one_file(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begun(door)
    parts = sent(door, upload, b"01234", b"56789")
    both_are_there, asked = threading.Barrier(2), threading.Event()
    wait = completion._await_other

    def joins_slowly(*given: Any) -> Any:
        assert asked.wait(20)
        return joined(*given)

    def tells_that_it_waits(*given: Any) -> None:
        asked.set()
        wait(*given)

    joined = completion._joined
    monkeypatch.setattr(completion, "_joined", joins_slowly)
    monkeypatch.setattr(completion, "_await_other", tells_that_it_waits)

    def ask(_: int) -> TestResponse:
        both_are_there.wait(20)
        client = door.app.test_client()
        headers = {"Authorization": f"Bearer {door.key}"}
        return client.post(f"/v1/uploads/{upload}/complete", json={"part_ids": parts}, headers=headers)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))

    assert first.json == second.json
    assert content(door, first) == WHOLE
    with door.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(File)) == 1
    assert len(door.blobs()) == 1


def test_a_cancel_wins_over_a_completion_that_has_not_made_its_file(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begun(door)
    parts = sent(door, upload, WHOLE)
    joined = completion._joined

    def cancelled_meanwhile(*given: Any) -> Any:
        stored = joined(*given)
        assert cancel(door, upload).status_code == 200
        return stored

    monkeypatch.setattr(completion, "_joined", cancelled_meanwhile)

    assert refused(complete(door, upload, parts)) == (409, "upload_not_pending")
    assert door.blobs() == []
    assert door.get("/v1/files").json["data"] == []  # type: ignore[index]


def test_a_cancel_that_takes_the_parts_away_ends_the_joining(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begun(door)
    parts = sent(door, upload, WHOLE)
    joined = completion._joined

    def cancelled_before(*given: Any) -> Any:
        cancel(door, upload)
        return joined(*given)

    monkeypatch.setattr(completion, "_joined", cancelled_before)

    assert refused(complete(door, upload, parts)) == (409, "upload_not_pending")
    assert door.blobs() == []


def test_what_is_done_is_answered_as_done_although_the_parts_cannot_be_deleted(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise Unavailable("The store of files does not answer; try again.", code="storage_unavailable")

    given_up, whole = begun(door), begun(door)
    parts = sent(door, whole, WHOLE)
    monkeypatch.setattr(FolderBlobs, "delete_of", away)

    assert (cancel(door, given_up).json or {})["status"] == "cancelled"
    assert (complete(door, whole, parts).json or {})["status"] == "completed"


def test_a_completion_whose_process_died_can_be_asked_for_again(door: Door) -> None:
    upload = begun(door)
    parts = sent(door, upload, b"01234", b"56789")
    FolderBlobs(door.settings.data / "blobs").write("file-begun", io.BytesIO(b"0123"))
    change(door, upload, joining="file-begun", joining_until=1.0)

    assert content(door, complete(door, upload, parts)) == WHOLE
    assert len(door.blobs()) == 1


def test_while_another_process_joins_a_request_is_told_to_ask_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begun(door)
    parts = sent(door, upload, WHOLE)
    change(door, upload, joining="file-other", joining_until=1e12, expires_at=1.0)
    monkeypatch.setattr(completion, "LONGEST_S", 0)

    answer = complete(door, upload, parts)

    assert refused(answer) == (409, "upload_completing")
    assert "x-should-retry" not in answer.headers
    sweep(door)
    assert door.get(f"/v1/uploads/{upload}").json["status"] == "pending"  # type: ignore[index]


def test_upkeep_takes_away_what_nobody_completed_and_what_was_left_behind(door: Door) -> None:
    late, alive, orphan = begun(door), begun(door), "upload_orphan"
    sent(door, late, WHOLE)
    kept = sent(door, alive, WHOLE)
    blobs = FolderBlobs(door.settings.data / "blobs")
    blobs.write("file-begun", io.BytesIO(b"0123"))
    blobs.write(f"part_x-of-{orphan}", io.BytesIO(b"x"))
    os.utime(blobs.path(f"part_x-of-{orphan}"), (1, 1))
    blobs.write("part_x-of-upload_restored", io.BytesIO(b"x"))
    change(door, late, expires_at=limits.LIFE_S, joining="file-begun", joining_until=1.0)

    sweep(door)

    assert len(door.blobs()) == 2
    assert refused(door.get(f"/v1/uploads/{late}")) == (404, "upload_not_found")
    assert content(door, complete(door, alive, kept)) == WHOLE


def test_an_upload_that_expired_lately_is_still_told_as_such(door: Door) -> None:
    upload = begun(door)
    with door.database.reading() as session:
        created = session.get_one(Upload, upload).created_at
    change(door, upload, expires_at=created - 1)

    sweep(door)

    assert door.get(f"/v1/uploads/{upload}").json["status"] == "expired"  # type: ignore[index]


def test_a_file_that_was_to_live_for_a_while_goes_when_that_is_over(door: Door) -> None:
    upload = begun(door, expires_after={"anchor": "created_at", "seconds": 3600})
    file = complete(door, upload, sent(door, upload, WHOLE)).json["file"]  # type: ignore[index]
    sweep(door)
    assert door.get(f"/v1/files/{file['id']}").json["expires_at"] == file["created_at"] + 3600  # type: ignore[index]
    with door.database.transaction() as session:
        session.execute(update(File).values(expires_at=1.0))

    sweep(door)

    assert door.get(f"/v1/files/{file['id']}").status_code == 404
    assert door.get(f"/v1/uploads/{upload}").json["file"] is None  # type: ignore[index]
    assert door.blobs() == []


@pytest.mark.parametrize(
    ("name", "kind", "purpose", "status"),
    [
        ("a.jsonl", "application/octet-stream", "fine-tune", 200),
        ("a.unknown", "application/octet-stream", "fine-tune", 200),
        ("a", "text/x-anything", "fine-tune", 200),
        ("a.zip", "application/x-zip-compressed", "fine-tune", 200),
        ("a.png", "image/png", "vision", 200),
        ("a.pdf", "application/pdf", "user_data", 200),
        ("a.pdf", "application/pdf", "fine-tune", 415),
        ("a.png", "image/png", "fine-tune", 415),
        ("a.exe", "application/octet-stream", "vision", 415),
    ],
)
def test_a_file_is_taken_for_the_purposes_that_can_read_its_type(
    door: Door, name: str, kind: str, purpose: str, status: int
) -> None:
    form = {"purpose": purpose, "file": (io.BytesIO(b"x"), name, kind)}

    answer = door.send("POST", "/v1/files", data=form, content_type="multipart/form-data")

    assert answer.status_code == status
    assert status == 200 or "user_data" in answer.text

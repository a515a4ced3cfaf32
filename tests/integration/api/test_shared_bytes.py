"""A tenant's equal bytes are kept once, and go with the last file that has them."""

import threading
from collections.abc import Callable
from hashlib import sha256

import pytest
from sqlalchemy import update

from db import files, jobs, readers
from db.tables import File, Quota
from domain.errors import NotFound
from support.door import JSONL, Door


def content(door: Door, file_id: str) -> bytes:
    answer = door.get(f"/v1/files/{file_id}/content")
    assert answer.status_code == 200, answer.text
    return answer.data


def delete(door: Door, file_id: str) -> None:
    assert door.send("DELETE", f"/v1/files/{file_id}").status_code == 200


def all_at_once(*works: Callable[[], object]) -> None:
    start = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        start.wait()
        work()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_equal_bytes_under_two_names_are_stored_once_and_read_as_two_files(door: Door) -> None:
    one, two = door.file(name="one.jsonl"), door.file(name="two.jsonl")

    assert one != two
    assert len(door.blobs()) == 1
    assert content(door, one) == content(door, two) == JSONL
    assert door.get(f"/v1/files/{two}").json["filename"] == "two.jsonl"


@pytest.mark.parametrize("first", [0, 1])
def test_shared_bytes_go_with_the_last_file_whichever_goes_first(door: Door, first: int) -> None:
    made = [door.file(), door.file()]

    delete(door, made[first])
    assert content(door, made[1 - first]) == JSONL
    delete(door, made[1 - first])

    assert door.blobs() == []


def test_bytes_of_a_file_that_was_deleted_are_stored_anew(door: Door) -> None:
    delete(door, door.file())

    assert content(door, door.file()) == JSONL


def test_tenants_share_nothing(door: Door) -> None:
    other = door.new_key("b")
    door.file()
    theirs = door.file(key=other)

    assert len(door.blobs()) == 2
    assert door.send("DELETE", f"/v1/files/{theirs}", key=other).status_code == 200
    assert len(door.blobs()) == 1


def test_each_file_counts_its_bytes(door: Door) -> None:
    with door.database.transaction() as session:
        session.execute(update(Quota).values(max_bytes=2 * len(JSONL)))
    for _ in range(2):
        door.file()

    assert door.upload().status_code == 429
    assert len(door.blobs()) == 1


def test_equal_files_that_come_at_once_are_stored_once(door: Door) -> None:
    made: list[str] = []

    all_at_once(*[lambda: made.append(door.file())] * 6)

    assert len(set(made)) == 6
    assert len(door.blobs()) == 1
    assert {content(door, file_id) for file_id in made} == {JSONL}


def test_a_file_that_comes_while_its_like_is_deleted_has_its_bytes(door: Door) -> None:
    for _ in range(10):
        old, new = door.file(), list[str]()

        all_at_once(lambda old=old: delete(door, old), lambda new=new: new.append(door.file()))

        assert content(door, new[0]) == JSONL
        delete(door, new[0])
        assert door.blobs() == []


def test_a_result_shares_its_bytes_with_no_upload(door: Door) -> None:
    about = {
        "filename": "r",
        "bytes": len(JSONL),
        "sha256": sha256(JSONL).hexdigest(),
        "purpose": files.RESULTS,
    }
    with door.database.transaction() as session:
        session.add(File(id="file-result", tenant="a", blob="file-result", **about))

    assert content(door, door.file()) == JSONL


def test_a_job_and_a_delete_that_cross_leave_a_job_with_its_file_or_neither(door: Door) -> None:
    for _ in range(10):
        file_id, answers = door.file(), dict[str, int]()

        def submit(file_id: str = file_id, answers: dict[str, int] = answers) -> None:
            answers["submit"] = door.submit({"training_file": file_id}).status_code

        def drop(file_id: str = file_id, answers: dict[str, int] = answers) -> None:
            answers["delete"] = door.send("DELETE", f"/v1/files/{file_id}").status_code

        all_at_once(submit, drop)

        assert answers in ({"submit": 200, "delete": 409}, {"submit": 400, "delete": 200})


def test_a_job_that_is_over_lets_its_file_go(door: Door) -> None:
    file_id = door.file()
    job = door.submit({"training_file": file_id}).json
    assert door.send("DELETE", f"/v1/files/{file_id}").status_code == 409

    door.send("POST", f"/v1/fine_tuning/jobs/{job['id']}/cancel")

    delete(door, file_id)


def test_a_deleted_file_is_refused_by_whoever_submits_late(door: Door) -> None:
    file_id = door.file()
    delete(door, file_id)
    new = jobs.Submission(tenant="a", spec={"file": file_id}, files={file_id: "file"})

    with pytest.raises(NotFound) as told:
        with door.database.transaction() as session:
            jobs.submit(session, new)

    assert (told.value.code, told.value.param) == ("file_not_found", "file")
    with door.database.reading() as session:
        assert readers.one_of(session, file_id) is None


def test_every_file_that_a_spec_names_is_held(door: Door) -> None:
    named = {"training_file": "file-1", "validation_file": "file-2", "multimodal": {"test_file": "file-3"}}

    assert sorted(readers.named_by(named)) == ["file-1", "file-2", "file-3"]
    assert readers.named_by({"file": "file-4"}) == {"file-4": "file"}
    assert readers.named_by({"files": ["file-5"], "inputs": []}) == {"file-5": "inputs"}

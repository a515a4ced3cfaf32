"""Jobs of all kinds over HTTP: found by what they are, waited for, answered anew only when they changed."""

import threading
from typing import Any

import pytest
from sqlalchemy import update

from db import jobs
from db.tables import Job
from domain.job import Kind, Lane, Stage, State
from support.door import Door

JOBS = "/v1/jobs"


def submitted(door: Door, kind: Kind = Kind.FINE_TUNE, tenant: str = "a", **labels: str) -> str:
    is_tune = kind is Kind.FINE_TUNE
    new = jobs.Submission(
        tenant=tenant,
        kind=kind,
        stage=Stage.VALIDATE if is_tune else Stage.RUN,
        spec={"model": "late-fusion", "training_file": "file-1", "multimodal": {}}
        if is_tune
        else {"file": "f"},
        labels=labels or None,
    )
    with door.database.transaction() as session:
        return jobs.submit(session, new).id


def change(door: Door, job_id: str, **values: Any) -> None:
    with door.database.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def found(door: Door, **query: Any) -> list[str]:
    answer = door.get(JOBS, query_string=query)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in (answer.json or {})["data"]]


def test_jobs_of_all_kinds_are_listed_newest_first(door: Door) -> None:
    made = [submitted(door, kind) for kind in Kind]

    answer = door.get(JOBS).json or {}

    assert [job["id"] for job in answer["data"]] == made[::-1]
    assert {job["object"] for job in answer["data"]} == {"job"}
    assert {job["kind"] for job in answer["data"]} == set(Kind)


def test_kind_and_status_and_metadata_must_all_hold(door: Door) -> None:
    wanted = submitted(door, Kind.CHECK, team="red", run="1")
    submitted(door, Kind.CHECK, team="red")
    submitted(door, Kind.CHECK, team="red", run="2")
    submitted(door, Kind.PREDICT, team="red", run="1")
    done = submitted(door, Kind.CHECK, team="red", run="1")
    change(door, done, state=State.SUCCEEDED)
    query = {"kind": "check", "status": "queued", "metadata[team]": "red", "metadata[run]": "1"}

    assert found(door, **query) == [wanted]
    assert found(door, **query | {"status": "succeeded"}) == [done]
    assert found(door, **query | {"status": "failed"}) == []


def test_a_label_that_many_jobs_carry_is_still_found_by_status(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.job_pages._COMMON", 2)
    made = [submitted(door, Kind.CHECK, team="red", run=str(n % 2)) for n in range(4)]
    submitted(door, Kind.CHECK, team="blue")
    change(door, made[1], state=State.FAILED)

    assert found(door, **{"status": "queued", "metadata[team]": "red"}) == [made[3], made[2], made[0]]
    assert found(door, **{"status": "failed", "metadata[team]": "red", "metadata[run]": "1"}) == [made[1]]
    assert found(door, **{"status": "failed", "metadata[team]": "red", "metadata[run]": "0"}) == []


@pytest.mark.parametrize(
    ("state", "stage", "status"),
    [
        (State.QUEUED, Stage.VALIDATE, "validating_files"),
        (State.RUNNING, Stage.VALIDATE, "validating_files"),
        (State.QUEUED, Stage.RUN, "queued"),
        (State.FAILED, Stage.VALIDATE, "failed"),
        (State.SUCCEEDED, Stage.RUN, "succeeded"),
    ],
)
def test_a_status_means_what_the_job_shows(door: Door, state: State, stage: Stage, status: str) -> None:
    job, other = submitted(door), submitted(door)
    change(door, job, state=state, stage=stage)
    change(door, other, state=State.CANCELLED)

    assert found(door, status=status) == [job]
    listed = door.get("/v1/fine_tuning/jobs", query_string={"status": status}).json or {}
    assert [(entry["id"], entry["status"]) for entry in listed["data"]] == [(job, status)]


def test_a_filtered_list_is_paged_without_gap_or_repeat(door: Door) -> None:
    made = [submitted(door, list(Kind)[n % 3], team="red") for n in range(7)]
    change(door, made[2], created_at=0.0)

    pages, after = [], None
    for _ in range(4):
        query = {"metadata[team]": "red", "limit": 2} | ({"after": after} if after else {})
        pages.append(door.get(JOBS, query_string=query).json or {})
        after = pages[-1]["last_id"]

    assert sorted(job["id"] for page in pages for job in page["data"]) == sorted(made)
    assert [page["has_more"] for page in pages] == [True, True, True, False]


@pytest.mark.parametrize("query", [{"kind": "party"}, {"status": "done"}, {"limit": "0"}])
def test_a_filter_that_is_no_word_of_ours_is_a_400_that_lists_them(door: Door, query: dict[str, str]) -> None:
    answer = door.get(JOBS, query_string=query)

    assert answer.status_code == 400
    assert (answer.json or {})["error"]["param"] == next(iter(query))


def test_more_pairs_than_a_job_can_carry_are_refused_before_the_database_is_asked(door: Door) -> None:
    pairs = {f"metadata[{n}]": "x" for n in range(17)}

    answer = door.get(JOBS, query_string=pairs)

    assert answer.status_code == 400
    assert (answer.json or {})["error"]["code"] == "invalid_metadata"
    assert found(door, **dict(list(pairs.items())[:16])) == []


def test_another_tenants_jobs_are_as_absent_as_none(door: Door) -> None:
    job_id, stranger = submitted(door, team="red"), door.new_key("b")
    submitted(door, Kind.CHECK, tenant="b")

    answers = [
        door.get(f"{JOBS}/{job_id}", key=stranger),
        door.get(f"{JOBS}/{job_id}", key=stranger, query_string={"wait": 30}),
        door.send("POST", f"{JOBS}/{job_id}/cancel", key=stranger),
        door.send("POST", f"{JOBS}/{job_id}/pause", key=stranger),
        door.send("POST", f"{JOBS}/{job_id}/resume", key=stranger),
        door.get(JOBS, query_string={"after": job_id}, key=stranger),
    ]

    assert [answer.status_code for answer in answers] == [404] * 6
    assert len((door.get(JOBS, key=stranger).json or {})["data"]) == 1
    assert (door.get(JOBS, key=stranger, query_string={"metadata[team]": "red"}).json or {})["data"] == []


@pytest.mark.parametrize("kind", list(Kind))
def test_a_job_of_any_kind_is_paused_listed_as_such_and_resumed(door: Door, kind: Kind) -> None:
    job_id = submitted(door, kind)

    paused = door.send("POST", f"{JOBS}/{job_id}/pause")
    listed = door.get(f"{JOBS}?status=paused")
    resumed = door.send("POST", f"{JOBS}/{job_id}/resume")

    assert (paused.json or {})["status"] == "paused"
    assert [job["id"] for job in (listed.json or {})["data"]] == [job_id]
    assert (resumed.json or {})["status"] in ("queued", "validating_files")


def test_a_job_of_any_kind_is_cancelled(door: Door) -> None:
    job_id = submitted(door, Kind.CHECK)

    answer = door.send("POST", f"{JOBS}/{job_id}/cancel")
    again = door.send("POST", f"{JOBS}/{job_id}/cancel")

    assert (answer.json or {})["status"] == "cancelled"
    assert door.bells.woken == [job_id]
    assert again.status_code == 409


@pytest.mark.parametrize("path", [JOBS, "/v1/fine_tuning/jobs"])
def test_an_unchanged_job_is_a_304_and_a_changed_one_is_told(door: Door, path: str) -> None:
    job_id = submitted(door)
    first = door.get(f"{path}/{job_id}")

    same = door.get(f"{path}/{job_id}", headers={"If-None-Match": first.headers["ETag"]})
    change(door, job_id, state=State.RUNNING)
    changed = door.get(f"{path}/{job_id}", headers={"If-None-Match": first.headers["ETag"]})

    assert (same.status_code, same.data) == (304, b"")
    assert same.headers["ETag"] == first.headers["ETag"]
    assert changed.status_code == 200


@pytest.mark.parametrize(
    "path", [JOBS, f"{JOBS}/{{}}", "/v1/fine_tuning/jobs/{}", "/v1/fine_tuning/jobs/{}/metrics"]
)
def test_who_names_what_he_has_hears_if_it_is_something_else_by_now(door: Door, path: str) -> None:
    path = path.format(submitted(door))
    tag = door.get(path).headers["ETag"]

    same = door.get(path, headers={"If-Match": tag})
    other = door.get(path, headers={"If-Match": '"other"'})

    assert same.status_code == 200
    assert (other.status_code, (other.json or {})["error"]["code"]) == (412, "precondition_failed")


def test_an_estimate_stays_the_same_until_the_job_reports_again(door: Door) -> None:
    job_id = submitted(door)
    told = {"stage": "training", "eta_s": 60.0, "reported_at": 1000.0}
    change(door, job_id, state=State.RUNNING, stage=Stage.RUN, progress=told)

    assert (door.get(f"/v1/fine_tuning/jobs/{job_id}").json or {})["estimated_finish"] == 1060

    change(door, job_id, progress=told | {"stage": "encoding"})
    assert (door.get(f"/v1/fine_tuning/jobs/{job_id}").json or {})["estimated_finish"] is None


@pytest.mark.parametrize("asked", [{"query_string": {"wait": 60}}, {"headers": {"Prefer": "wait=60"}}])
def test_a_get_that_waits_is_answered_when_the_status_changes(door: Door, asked: dict[str, Any]) -> None:
    job_id = submitted(door)
    # That a worker checks its files is no change that a client sees; only the next is.
    turns = [
        threading.Timer(0.2, change, (door, job_id), {"state": State.RUNNING}),
        threading.Timer(0.5, change, (door, job_id), {"stage": Stage.RUN, "state": State.QUEUED}),
    ]
    for turn in turns:
        turn.start()

    answer = door.get(f"/v1/fine_tuning/jobs/{job_id}", **asked)

    for turn in turns:
        turn.join()
    assert (answer.json or {})["status"] == "queued"


def test_a_final_job_is_not_waited_for(door: Door) -> None:
    job_id = submitted(door)
    change(door, job_id, state=State.CANCELLED)

    answer = door.get(f"{JOBS}/{job_id}", headers={"Prefer": "wait=60"})

    assert (answer.json or {})["status"] == "cancelled"
    assert "Retry-After" not in answer.headers


def test_only_ready_jobs_ahead_count_for_the_place_in_the_queue(door: Door) -> None:
    first, urgent, later, waits, other_lane = (submitted(door, Kind.CHECK) for _ in range(5))
    change(door, urgent, priority=5)
    change(door, later, priority=9, available_at=1e12)
    change(door, other_lane, lane=Lane.TRAIN, priority=9)

    def place(job_id: str) -> Any:
        return (door.get(f"{JOBS}/{job_id}").json or {})["queue"]["position"]

    assert [place(job) for job in (urgent, first, waits, later, other_lane)] == [0, 1, 2, 0, 0]
    change(door, waits, state=State.RUNNING)
    assert place(waits) is None

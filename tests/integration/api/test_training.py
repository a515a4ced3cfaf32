"""What a training leaves to look at: checkpoints, curves, and the log of what its processes printed."""

import pytest

from db import claims, reports
from db.logs import Logs
from db.tables import Job
from domain.job import Lane
from support.door import Door

JOBS = "/v1/fine_tuning/jobs"


@pytest.fixture
def job(door: Door) -> Job:
    """Running."""
    assert door.submit({"suffix": "tiny"}).status_code == 200
    claimed = claims.claim(door.database, Lane.CPU, "worker-1", 60.0)
    assert claimed is not None
    return claimed


def report(door: Door, job: Job, *metrics: tuple[str, int, float]) -> None:
    with door.database.transaction() as session:
        reports.report(session, job.id, job.fence, reports.Words(metrics=metrics))


def test_checkpoints_are_listed_newest_first_page_by_page(door: Door, job: Job) -> None:
    for step in (10, 20, 30):
        with door.database.transaction() as session:
            reports.checkpoint(
                session, job.id, job.fence, ref=f"r/{step}", step=step, metrics={"valid_loss": 0.5}
            )

    first = door.get(f"{JOBS}/{job.id}/checkpoints", query_string={"limit": 2}).json or {}
    rest = door.get(f"{JOBS}/{job.id}/checkpoints", query_string={"after": first["last_id"]}).json or {}

    assert [c["step_number"] for c in first["data"] + rest["data"]] == [30, 20, 10]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    newest = first["data"][0]
    assert newest["object"] == "fine_tuning.job.checkpoint"
    assert newest["fine_tuning_job_id"] == job.id
    assert newest["fine_tuned_model_checkpoint"].startswith("ft:late-fusion:a:tiny:")
    assert newest["fine_tuned_model_checkpoint"].endswith(":ckpt-step-30")
    assert newest["metrics"] == {"step": 30, "valid_loss": 0.5}


def test_a_curve_is_thinned_and_keeps_its_ends(door: Door, job: Job) -> None:
    report(door, job, *(("train_loss", step, step / 10) for step in range(1, 1001)), ("lr", 7, 0.1))

    series = (door.get(f"{JOBS}/{job.id}/metrics", query_string={"max_points": 50}).json or {})["series"]

    steps = series["train_loss"]["steps"]
    assert 30 <= len(steps) <= 50
    assert (steps[0], steps[-1]) == (1, 1000)
    assert steps == sorted(set(steps))
    assert series["train_loss"]["values"] == [step / 10 for step in steps]
    assert series["lr"] == {"steps": [7], "values": [0.1]}


@pytest.mark.parametrize("points", [2, 3, 9, 10, 11])
def test_no_number_of_points_is_exceeded(door: Door, job: Job, points: int) -> None:
    report(door, job, *(("x", step, 0.0) for step in range(10)))

    answer = door.get(f"{JOBS}/{job.id}/metrics", query_string={"max_points": points, "names": "x,y"})

    steps = (answer.json or {})["series"]["x"]["steps"]
    assert len(steps) <= points
    assert (steps[0], steps[-1]) == (0, 9)
    assert points < 10 or len(steps) == 10


def test_only_the_curves_that_are_named_are_given(door: Door, job: Job) -> None:
    report(door, job, ("a", 1, 1.0), ("b", 1, 1.0))

    answer = door.get(f"{JOBS}/{job.id}/metrics", query_string={"names": "b, c"}).json or {}

    assert list(answer["series"]) == ["b"]
    assert (answer["object"], answer["job_id"]) == ("fine_tuning.job.metrics", job.id)


def test_the_logs_of_all_claims_are_told_from_their_end(door: Door, job: Job) -> None:
    logs = Logs(door.settings.data)
    for fence, text in ((1, "one\ntwo\n"), (2, "three\nfour\n")):
        logs.path(job.id, fence).parent.mkdir(parents=True, exist_ok=True)
        logs.path(job.id, fence).write_text(text)

    everything = door.get(f"{JOBS}/{job.id}/logs").json or {}
    three = door.get(f"{JOBS}/{job.id}/logs", query_string={"tail": 3}).json or {}

    assert everything["data"] == [
        {"attempt_fence": 1, "text": "one\ntwo"},
        {"attempt_fence": 2, "text": "three\nfour"},
    ]
    assert [entry["text"] for entry in three["data"]] == ["two", "three\nfour"]


@pytest.mark.parametrize("what", ["checkpoints", "metrics", "logs", "events?stream=true"])
def test_what_is_another_tenants_is_as_absent_as_none(door: Door, job: Job, what: str) -> None:
    assert door.get(f"{JOBS}/{job.id}/{what}", key=door.new_key("b")).status_code == 404


@pytest.mark.parametrize(
    ("what", "query", "status"),
    [
        ("checkpoints", {"after": "ftckpt_none"}, 404),
        ("metrics", {"max_points": "1"}, 400),
        ("metrics", {"max_points": "many"}, 400),
        ("logs", {"tail": "0"}, 400),
        ("events", {"stream": "perhaps"}, 400),
        ("events", {"stream": "true", "after": "99"}, 404),
        ("events", {"stream": "true", "after": "ftevent-other-1"}, 404),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(
    door: Door, job: Job, what: str, query: dict[str, str], status: int
) -> None:
    answer = door.get(f"{JOBS}/{job.id}/{what}", query_string=query)

    assert answer.status_code == status
    assert (answer.json or {})["error"]["param"] in query

"""Checking a data set before anything is trained, and what is told of a job's training."""

import json
from typing import Any

import pytest

from plait import Log, PlaitAPIError, Series
from support.scripted import Answer, page, refusal


def issue(code: str, **more: Any) -> dict[str, Any]:
    return {
        "code": code,
        "message": f"about {code}",
        "line": 2,
        "column": "image",
        "severity": "error",
    } | more


def check(status: str = "succeeded", *issues: dict[str, Any], **more: Any) -> dict[str, Any]:
    errors = sum(one["severity"] == "error" for one in issues)
    counts = {"rows": 3, "errors": errors, "warnings": len(issues) - errors}
    result = counts | {"issues": list(issues), "issues_total": len(issues)} | more
    return {
        "id": "check_1",
        "kind": "check",
        "status": status,
        "file": "file-1",
        "result": result if status == "succeeded" else None,
        "result_files": ["file-8", "file-9"],
    }


@pytest.fixture
def rows(tmp_path, server):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "hello", "label": "x"}\n')
    server.on("POST /files", {"id": "file-1", "filename": "rows.jsonl"})
    server.on("DELETE /files/file-1", {"id": "file-1", "object": "file", "deleted": True})
    return path


def methods(server) -> list[str]:
    return [asked.method for asked in server.asked]


def test_a_file_is_checked_as_what_it_is_for_and_waited_for(client, server):
    server.on("POST /files/file-1/validate", Answer(202, check("queued")))
    server.on("GET /jobs/check_1", check("running"), check("succeeded", issue("missing_media")))

    done = client.files.validate("file-1", {"towers": {}}, "test")

    asked = server.asked[0]
    assert (asked.json, asked.headers["prefer"]) == (
        {"role": "test", "multimodal": {"towers": {}}},
        "wait=30",
    )
    assert (done.is_final, done.is_good, done.rows, done.errors) == (True, False, 3, 1)
    assert (done.issues[0].code, done.issues[0].line, done.issues[0].column) == ("missing_media", 2, "image")


def test_a_check_need_not_be_waited_for(client, server):
    server.on("POST /files/file-1/validate", Answer(202, check("queued")))

    assert client.files.validate("file-1", wait=False).status == "queued"
    assert len(server.asked) == 1


def test_good_data_stay_on_the_server_and_bad_go_again(client, server, rows):
    warning = issue("duplicate_row", severity="warning")
    server.on(
        "POST /files/file-1/validate", check("succeeded", warning), check("succeeded", issue("no_label"))
    )

    good, bad = client.data.check(rows), client.data.check(rows)

    assert (good.is_good, good.file, bad.is_good) == (True, "file-1", False)
    assert methods(server) == ["POST", "POST", "POST", "POST", "DELETE"]


@pytest.mark.parametrize(("keep", "issues", "gone"), [(True, [issue("x")], 0), (False, [], 1)])
def test_the_caller_may_decide_what_stays(client, server, rows, keep, issues, gone):
    server.on("POST /files/file-1/validate", check("succeeded", *issues))

    client.data.check(rows, keep=keep)

    assert methods(server).count("DELETE") == gone


def test_a_check_that_cannot_be_made_leaves_no_file_and_tells_its_own_reason(client, server, rows):
    server.on("POST /files/file-1/validate", refusal(400, "invalid_spec", "towers: no such column"))
    server.on("DELETE /files/file-1", refusal(409, "file_in_use", "in use", x_should_retry="false"))

    with pytest.raises(PlaitAPIError, match="no such column"):
        client.data.check(rows)

    assert methods(server)[-1] == "DELETE"


def test_issues_that_do_not_fit_into_the_answer_are_read_from_the_result_file(client, server, rows):
    every = [issue("missing_media", line=n) for n in range(2, 152)]
    server.on("POST /files/file-1/validate", check("succeeded", *every[:100], issues_total=150, errors=150))
    server.on("GET /files/file-8", {"id": "file-8", "filename": "other.json"})
    server.on("GET /files/file-9", {"id": "file-9", "filename": "issues.jsonl"})
    lines = "".join(json.dumps(one) + "\n" for one in every)
    server.on("GET /files/file-9/content", Answer(200, lines.encode()))

    done = client.data.check(rows)

    assert [one.line for one in done.issues] == list(range(2, 152))
    assert done.errors == 150


def test_checkpoints_curves_and_logs_are_told_in_types(client, server):
    job = "/fine_tuning/jobs/ftjob-1"
    told = {
        "id": "ftckpt_1",
        "step_number": 20,
        "metrics": {"step": 20, "valid_loss": 0.5, "full_valid_loss": None},
    }
    server.on(f"GET {job}/checkpoints", page([told]))
    curve = {"train_loss": {"steps": [1, 2], "values": [0.5, 0.25]}}
    server.on(f"GET {job}/metrics", {"object": "fine_tuning.job.metrics", "series": curve})
    server.on(f"GET {job}/logs", {"data": [{"attempt_fence": 2, "text": "hello\n"}]})

    [checkpoint] = client.jobs.checkpoints("ftjob-1")
    curves = client.jobs.metrics("ftjob-1", ["train_loss", "lr"], max_points=50)

    assert (checkpoint.step, checkpoint.metrics) == (20, {"valid_loss": 0.5})
    assert curves == {"train_loss": Series([1, 2], [0.5, 0.25])}
    assert client.jobs.logs("ftjob-1", tail=7) == (Log(2, "hello\n"),)
    assert [asked.query for asked in server.asked[1:]] == [
        {"names": "train_loss,lr", "max_points": "50"},
        {"tail": "7"},
    ]


def test_jobs_of_other_kinds_are_found_ended_and_waited_for(client, server):
    server.on("GET /jobs/check_1", check("running"), check("running"), check())
    server.on("POST /jobs/check_1/cancel", check("cancelled"))
    server.on("GET /jobs", page([check()]))

    assert (client.jobs.get("check_1").kind, client.jobs.cancel("check_1").status) == ("check", "cancelled")
    assert client.jobs.wait("check_1").status == "succeeded"
    [listed] = client.jobs.list(kind=None, metadata={"team": "a"}, limit=3)
    assert (listed.kind, listed.training_file, listed.fine_tuned_model) == ("check", "file-1", None)
    assert server.asked[-1].query == {"metadata[team]": "a", "limit": "3"}

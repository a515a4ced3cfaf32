"""`plait data check`, `plait models` and what `plait jobs` tells of a training."""

import io
import json
import zipfile
from typing import Any

import pytest

from support.scripted import Answer, page, refusal

MODEL = "ft:late-fusion:default:digits:1a2b"
JOB = "/fine_tuning/jobs/ftjob-1"


def issue(code: str, **more: Any) -> dict[str, Any]:
    return {
        "code": code,
        "message": f"about {code}",
        "line": 2,
        "column": "image",
        "severity": "error",
    } | more


def check(*issues: dict[str, Any], status: str = "succeeded", **more: Any) -> dict[str, Any]:
    errors = sum(one["severity"] == "error" for one in issues)
    result = {"rows": 3, "errors": errors, "warnings": len(issues) - errors, "issues": list(issues)}
    return {"id": "check_1", "kind": "check", "status": status, "file": "file-1", "result": result} | more


@pytest.fixture
def rows(tmp_path, server):
    (tmp_path / "rows.jsonl").write_text('{"text": "hello", "label": "x"}\n')
    server.on("POST /files", {"id": "file-1", "filename": "rows.jsonl"})
    server.on("DELETE /files/file-1", {"id": "file-1", "deleted": True})


def test_good_data_are_told_with_the_id_that_a_job_can_name(plait, server, rows):
    server.on("POST /files/file-1/validate", check(issue("duplicate_row", severity="warning")))

    done = plait("data", "check", "rows.jsonl", "--role", "test")

    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].split()[:6] == [
        "warning",
        "duplicate_row",
        "line",
        "2,",
        "column",
        "image",
    ]
    assert "3 rows: 0 errors, 1 warning." in done.stdout
    assert "again: multimodal.test_file: file-1" in done.stdout
    assert "again: training_file: file-1" in plait("data", "check", "rows.jsonl").stdout
    assert server.asked[1].json == {"role": "test"}


def test_what_was_made_of_columns_and_labels_is_told(plait, server, rows):
    found = check()
    found["result"] |= {"columns": {"text": "text", "age": "number"}, "classes": [f"c{n}" for n in range(30)]}
    server.on("POST /files/file-1/validate", found)

    told = plait("data", "check", "rows.jsonl").stdout.splitlines()

    assert told[0] == "Columns: age (number), text (text)"
    assert told[1].startswith("30 classes: c0, c1,")
    assert told[1].endswith("c19, ...")


def test_bad_data_are_told_end_with_1_and_are_gone_again(plait, server, rows):
    server.on("POST /files/file-1/validate", check(issue("missing_media", message="no a.png\x1b[2J")))

    done = plait("data", "check", "rows.jsonl")

    assert done.exit_code == 1
    assert r"no a.png\x1b[2J" in done.stdout
    assert "file-1" not in done.stdout
    assert server.asked[-1].method == "DELETE"


def test_the_issues_are_json_when_asked(plait, server, rows):
    server.on("POST /files/file-1/validate", check(issue("a"), issue("b")))

    done = plait("data", "check", "rows.jsonl", "--json")

    assert (done.exit_code, done.stderr) == (1, "")
    assert json.loads(done.stdout) == {"issues": [issue("a"), issue("b")]}


@pytest.mark.parametrize(
    ("spec", "sent"),
    [
        ("model: late-fusion\nmultimodal: {towers: {image: {}}}\n", {"towers": {"image": {}}}),
        ("towers: {image: {}}\n", {"towers": {"image": {}}}),
        ("model: late-fusion\ntraining_file: data\n", None),
    ],
)
def test_a_check_takes_the_part_of_a_spec_that_is_about_the_data(plait, server, rows, tmp_path, spec, sent):
    (tmp_path / "spec.yaml").write_text(spec)
    server.on("POST /files/file-1/validate", check())

    plait("data", "check", "rows.jsonl", "-f", "spec.yaml")

    assert server.asked[1].json.get("multimodal") == sent


def test_an_uploaded_file_is_checked_where_it_is(plait, server):
    server.on("POST /files/file-1/validate", check(issue("a")))

    assert plait("data", "check", "file-1").exit_code == 1
    assert [asked.method for asked in server.asked] == ["POST"]


def test_a_check_that_did_not_do_its_work_says_nothing_of_the_data(plait, server, rows):
    error = {"code": "internal", "message": "the worker died", "param": None}
    server.on("POST /files/file-1/validate", check(status="failed", result=None, error=error))

    done = plait("data", "check", "rows.jsonl", "--json")

    assert (done.exit_code, done.stdout) == (1, "")
    assert json.loads(done.stderr)["error"]["code"] == "internal"


def test_what_is_neither_here_nor_there_is_told_without_a_request(plait, server):
    done = plait("data", "check", "absent")

    assert "'absent' is neither a file or folder here nor the id" in done.stderr
    assert server.asked == []


def test_a_model_is_shown_with_what_was_measured(plait, server):
    known = {"id": MODEL, "owned_by": "default", "created": 0, "job": "ftjob-1", "family": "late-fusion"}
    found = {"metrics": {"test_accuracy": 0.93}, "classes": ["a", "b"], "columns": ["image", "text"]}
    server.on(f"GET /models/{MODEL}", known | found)

    told = plait("models", "show", MODEL).stdout

    assert [line.split(":", 1)[1].strip() for line in told.splitlines()] == [
        MODEL,
        "default",
        "1970-01-01 00:00:00Z",
        "late-fusion",
        "ftjob-1",
        "image, text",
        "a, b",
        "0.9300",
    ]


def test_a_model_is_fetched_into_a_folder_named_after_it(plait, server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", "{}")
    server.on(f"GET /models/{MODEL}/download", Answer(200, buffer.getvalue()))

    done, again = plait("models", "download", MODEL), plait("models", "download", MODEL, "--json")

    assert done.stdout == f"{MODEL} is in ft-late-fusion-default-digits-1a2b: config.json.\n"
    assert (tmp_path / "ft-late-fusion-default-digits-1a2b" / "config.json").read_text() == "{}"
    assert (again.exit_code, json.loads(again.stderr)["error"]["hint"]) == (1, "Name another folder.")


def test_a_model_is_deleted(plait, server):
    server.on(f"DELETE /models/{MODEL}", {"id": MODEL, "deleted": True})
    server.on("DELETE /models/late-fusion", refusal(403, "built_in", "late-fusion came with Plait."))

    assert plait("models", "delete", MODEL).stdout == f"{MODEL} is deleted.\n"
    refused = plait("models", "delete", "late-fusion")
    assert (refused.exit_code, "begin with ft:" in refused.stderr, "key" in refused.stderr) == (
        1,
        True,
        False,
    )


def test_checkpoints_are_listed_with_their_numbers(plait, server):
    told = [
        {
            "id": f"ftckpt_{n}",
            "created_at": 0,
            "step_number": n,
            "metrics": {"valid_loss": n / 10},
            "available": n == 2,
        }
        for n in (2, 1)
    ]
    server.on(f"GET {JOB}/checkpoints", page(told))

    lines = [line.split() for line in plait("jobs", "checkpoints", "ftjob-1").stdout.splitlines()]

    assert lines[0] == ["STEP", "CREATED", "VALID_LOSS", "KEPT", "ID"]
    assert [(line[0], *line[-3:]) for line in lines[1:]] == [
        ("2", "0.2000", "yes", "ftckpt_2"),
        ("1", "0.1000", "no", "ftckpt_1"),
    ]


def test_curves_are_summed_up_in_a_table_or_told_whole(plait, server):
    series = {"train_loss": {"steps": [1, 2, 3], "values": [0.5, 0.125, 0.25]}}
    server.on(f"GET {JOB}/metrics", {"series": series})

    told = plait("jobs", "metrics", "ftjob-1").stdout.splitlines()

    assert told[1].split() == ["train_loss", "3", "0.5", "0.25", "0.125", "0.5"]
    assert json.loads(plait("jobs", "metrics", "ftjob-1", "--json").stdout) == series


def test_named_curves_are_drawn_on_a_terminal(plait, server, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    server.on(f"GET {JOB}/metrics", {"series": {"train_loss": {"steps": [1, 9], "values": [0.5, 0.125]}}})

    told = plait("jobs", "metrics", "ftjob-1", "--name", "train_loss", "--points", "80").stdout

    assert "train_loss 0.125" in told
    assert "step 1 to 9" in told
    assert any("\u2800" < c <= "\u28ff" for c in told)
    assert server.asked[0].query == {"names": "train_loss", "max_points": "80"}


def test_a_metric_that_was_not_measured_and_an_empty_log_are_told(plait, server):
    server.on(f"GET {JOB}/metrics", {"series": {}})
    server.on(f"GET {JOB}/logs", {"data": []})

    assert plait("jobs", "metrics", "ftjob-1", "--name", "train_los").stderr.startswith(
        "Not measured: train_los."
    )
    assert plait("jobs", "logs", "ftjob-1").stderr == "Its processes have written nothing.\n"


def test_logs_are_printed_line_by_line_and_cannot_steer_the_terminal(plait, server):
    server.on(f"GET {JOB}/logs", {"data": [{"attempt_fence": 1, "text": "one\n\ttwo\x1b[2J\n"}]})

    done = plait("jobs", "logs", "ftjob-1", "--tail", "5")

    assert done.stdout == "one\n        two\\x1b[2J\n"
    assert done.stderr == "-- attempt with fence 1 --\n"


def test_a_check_is_shown_with_its_issues(plait, server):
    server.on("GET /jobs/check_1", check(issue("missing_media")))

    told = plait("jobs", "show", "check_1").stdout
    watched = plait("jobs", "watch", "check_1")

    assert "line 2, column image: about missing_media [missing_media]" in told
    assert "Errors: 1, warnings: 0." in watched.stdout

"""The command line `plait`: what it prints, where, and how it ends."""

import json
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from plait import Client
from plait.cli import main
from support.scripted import Answer, page, refusal

ROUTE = "/fine_tuning/jobs"


def job(status: str = "running", **more: Any) -> dict[str, Any]:
    return {"id": "ftjob-1", "object": "fine_tuning.job", "status": status, "model": "late-fusion", **more}


def event(n: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"ftevent-{n}",
        "created_at": n,
        "level": "info",
        "message": f"event {n}",
        "type": "message",
    } | more


def test_a_pushed_folder_is_told_with_its_id(plait, server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metadata.csv").write_text("text,label\nhello,x\n")
    (tmp_path / "schema.yaml").write_text("label: label\ncolumns: {text: {type: text}}\n")
    server.on("POST /files", {"id": "file-1", "filename": "data.zip", "bytes": 1500, "rows": 1})

    done = plait("files", "push", "data", "--schema", "schema.yaml")

    assert done.exit_code == 0
    assert "file-1" in done.stdout
    assert "1.5 kB" in done.stdout
    assert b'{"label": "label", "columns": {"text": {"type": "text"}}}' in server.asked[0].body


def test_every_listing_is_json_when_asked(plait, server):
    for route, name in (("GET /files", "files"), ("GET /models", "models"), (f"GET {ROUTE}", "jobs")):
        server.on(route, page([job()]))

        done = plait(name, "list", "--json")

        assert json.loads(done.stdout) == [job()], name


def test_jobs_are_listed_in_columns(plait, server):
    server.on(f"GET {ROUTE}", page([job("running"), job("failed") | {"id": "ftjob-2"}]))

    title, *rows = plait("jobs", "list").stdout.splitlines()

    assert title.split()[:2] == ["ID", "STATUS"]
    assert [row.split()[:2] for row in rows] == [["ftjob-1", "running"], ["ftjob-2", "failed"]]


def test_the_server_filters_jobs_by_kind_and_status(plait, server):
    tuned = {"kind": "fine_tune", "result": {"model": "ft:a", "metrics": {"test_accuracy": 1.0}}}
    server.on("GET /jobs", page([job("succeeded") | tuned]))

    done = plait("jobs", "list", "--status", "succeeded")
    plait("jobs", "list", "--kind", "all", "--limit", "5")

    assert done.stdout.splitlines()[1].split() == ["ftjob-1", "succeeded", "late-fusion", "ft:a"]
    assert [asked.query for asked in server.asked] == [
        {"kind": "fine_tune", "status": "succeeded", "limit": "20"},
        {"limit": "5"},
    ]


def test_the_server_filters_jobs_by_metadata(plait, server):
    server.on(f"GET {ROUTE}", page([job()]))

    assert plait("jobs", "list", "--metadata", "team=birds", "--metadata", "run=a=b").exit_code == 0
    wrong = plait("jobs", "list", "--metadata", "team")

    (asked,) = server.asked
    assert asked.query == {"metadata[team]": "birds", "metadata[run]": "a=b", "limit": "20"}
    assert (wrong.exit_code, "KEY=VALUE" in wrong.stderr) == (2, True)


def test_text_of_the_server_cannot_steer_the_terminal(plait, server):
    server.on("GET /files", page([{"id": "file-1", "filename": "a\x1b[2J\u202e.zip\n"}]))

    done = plait("files", "list")

    assert "\x1b" not in done.stdout
    assert r"a\x1b[2J\u202e.zip\n" in done.stdout


def test_a_download_keeps_to_this_folder_and_replaces_nothing(plait, server, tmp_path):
    server.on("GET /files/file-1", {"id": "file-1", "filename": "../../etc/.issues.json"})
    server.on("GET /files/file-1/content", Answer(200, b"[]"))

    first, second = plait("files", "download", "file-1"), plait("files", "download", "file-1")

    assert first.exit_code == 0
    assert (tmp_path / "issues.json").read_bytes() == b"[]"
    assert second.exit_code == 1
    assert "Name the file to write with -o" in second.stderr


def test_a_download_may_go_to_stdout(plait, server):
    server.on("GET /files/file-1/content", Answer(200, b"\x00raw"))

    assert plait("files", "download", "file-1", "-o", "-").stdout_bytes == b"\x00raw"


def test_a_job_is_made_from_yaml(plait, server, tmp_path):
    (tmp_path / "spec.yaml").write_text(
        "model: late-fusion\ntraining_file: file-1\nmetadata: {day: 2026-11-01}\n"
        "multimodal: {hyperparameters: {learning_rate: 2e-3, n_epochs: auto}}\n"
    )
    server.on(f"POST {ROUTE}", job("validating_files"))

    done = plait("jobs", "create", "-f", "spec.yaml")

    assert done.stdout.splitlines() == [
        "ftjob-1 is made (validating_files).",
        "Follow it: plait jobs watch ftjob-1",
    ]
    assert server.asked[0].json == {
        "model": "late-fusion",
        "training_file": "file-1",
        "metadata": {"day": "2026-11-01"},
        "multimodal": {"hyperparameters": {"learning_rate": 0.002, "n_epochs": "auto"}},
    }


def test_a_spec_from_stdin_can_be_changed_field_by_field(plait, server):
    server.on(f"POST {ROUTE}", job("queued"))
    changes = ["--set", "multimodal.fusion.type=mean", "--set", "seed=3", "--set", "model=late-fusion"]

    done = plait("jobs", "create", "-f", "-", *changes, "--json", text="model: x\ntraining_file: file-1\n")

    assert json.loads(done.stdout)["id"] == "ftjob-1"
    assert server.asked[0].json == {
        "model": "late-fusion",
        "training_file": "file-1",
        "multimodal": {"fusion": {"type": "mean"}},
        "seed": 3,
    }


def test_local_files_of_a_spec_are_sent_first_and_once(plait, server, tmp_path):
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "rows.jsonl").write_text("{}\n")
    (tmp_path / "specs" / "spec.yaml").write_text(
        "model: late-fusion\ntraining_file: rows.jsonl\nmultimodal: {test_file: ./rows.jsonl}\n"
    )
    server.on("POST /files", {"id": "file-7", "bytes": 3})
    server.on(f"POST {ROUTE}", job("queued"))

    done = plait("jobs", "create", "-f", "specs/spec.yaml")

    assert "rows.jsonl is a local file: sending it first." in done.stderr
    assert [asked.path for asked in server.asked] == ["/v1/files", f"/v1{ROUTE}"]
    assert server.asked[1].json["training_file"] == "file-7"
    assert server.asked[1].json["multimodal"]["test_file"] == "file-7"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("model: [", "is not valid YAML: line 1: expected the node content, but found"),
        ("- model", "does not hold a mapping"),
        ("seed: .nan", "not valid YAML"),
        ("training_file: data", "training_file: 'data' is neither"),
    ],
)
def test_a_spec_that_cannot_be_sent_is_told_with_its_reason(plait, server, spec, said):
    done = plait("jobs", "create", "-f", "-", text=spec)

    assert done.exit_code == 1
    assert said in done.stderr
    assert server.asked == []


def test_a_refused_spec_is_told_line_by_line_on_stderr(plait, server):
    problems = [
        {"path": "seed", "message": "not a number"},
        {"path": "x", "message": "unknown field", "allowed": ["a"]},
    ]
    refused = refusal(400, "invalid_spec", "seed: not a number (and 1 more)")
    server.on(f"POST {ROUTE}", Answer(400, refused.body | {"errors": problems}))

    done = plait("jobs", "create", "-f", "-", text="seed: x")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "  seed: not a number\n  x: unknown field; allowed here: a\n" in done.stderr


def test_errors_are_json_when_asked(plait):
    done = plait("jobs", "show", "ftjob-9", "--json")

    assert (done.exit_code, done.stdout) == (1, "")
    assert json.loads(done.stderr)["error"]["code"] == "not_found"


def test_wrong_usage_ends_with_2(plait):
    assert plait("jobs", "create").exit_code == 2
    assert plait("files", "push", "absent").exit_code == 2


def test_a_watch_of_a_success_prints_events_and_numbers_and_ends_with_0(plait, server):
    running = job(progress={"stage": "train", "epoch": 1, "n_epochs": 2, "step": 3, "total_steps": 6})
    towers = {"image": {"encoder": "a/b"}, "a b": {"encoder": "a/b"}}
    done = {"metrics": {"test_accuracy": 0.9}, "fine_tuned_model": "ft:a", "multimodal": {"towers": towers}}
    server.on(f"GET {ROUTE}/ftjob-1", running, job("succeeded", **done))
    server.on(f"GET {ROUTE}/ftjob-1/events", page([event(1)]), page([event(2, level="warn"), event(1)]))

    done = plait("jobs", "watch", "ftjob-1")

    assert done.exit_code == 0
    told = done.stdout.splitlines()
    assert told[0].endswith("  event 1")
    assert told[1].endswith("  warn: event 2")
    assert told[2] == "ftjob-1 succeeded."
    assert told[4].split() == ["test_accuracy", "0.9000"]
    assert told[5:] == ["Model: ft:a", "Ask it: plait predict ft:a -i 'a b=VALUE' -i image=VALUE"]
    assert all(c.isprintable() or c == "\n" for c in done.output)


def test_a_watch_of_a_failure_prints_every_issue_and_ends_with_1(plait, server):
    issues = [
        {
            "code": "missing_media",
            "message": "there is no a.png",
            "line": 17,
            "column": "image",
            "severity": "error",
        },
        {"code": "single_class", "message": "all labels are 'x'", "column": "label"},
        {"code": "duplicate_row", "message": "the same as line 2", "line": 3, "severity": "warning"},
    ]
    failed = event(1, level="error", message="validation failed", data={"issues": issues})
    error = {"code": "invalid_dataset", "message": "3 problems", "param": "training_file"}
    server.on(f"GET {ROUTE}/ftjob-1", job("failed", error=error, result_files=["file-9"]))
    server.on(f"GET {ROUTE}/ftjob-1/events", page([failed]))

    done = plait("jobs", "watch", "ftjob-1")

    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "Error: ftjob-1 failed: 3 problems [invalid_dataset] (training_file)",
        "  line 17, column image: there is no a.png [missing_media]",
        "  column label: all labels are 'x' [single_class]",
        "  warning: line 3: the same as line 2 [duplicate_row]",
        "All details: plait files download file-9",
    ]


def test_a_watch_of_a_cancelled_job_ends_with_3(plait, server):
    server.on(f"POST {ROUTE}", job("queued"))
    server.on(f"GET {ROUTE}/ftjob-1", job("cancelled"))
    server.on(f"GET {ROUTE}/ftjob-1/events", page([]))

    assert plait("jobs", "watch", "ftjob-1").exit_code == 3
    assert plait("jobs", "create", "-f", "-", "--watch", text="model: late-fusion").exit_code == 3


def test_a_watch_as_json_is_one_object_a_line_and_the_job_last(plait, server):
    server.on(f"GET {ROUTE}/ftjob-1", job("succeeded"))
    server.on(f"GET {ROUTE}/ftjob-1/events", page([event(2), event(1)]))

    done = plait("jobs", "watch", "ftjob-1", "--json")

    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [
        "ftevent-1",
        "ftevent-2",
        "ftjob-1",
    ]


def test_an_interrupted_watch_leaves_the_job_and_says_how_to_return(server):
    server.on(f"GET {ROUTE}/ftjob-1", job())
    server.on(f"GET {ROUTE}/ftjob-1/events", page([]))

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    with Client(server.base_url, "k", wait=interrupt) as client:
        done = CliRunner().invoke(main, ["jobs", "watch", "ftjob-1"], obj=client)

    assert done.exit_code == 130
    assert "plait jobs watch ftjob-1" in done.stderr
    assert {asked.method for asked in server.asked} == {"GET"}


def test_a_terminal_gets_a_bar_with_epoch_step_and_loss(plait, server, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "150")
    progress = {"stage": "train", "epoch": 1, "n_epochs": 2, "step": 3, "total_steps": 6, "eta_s": 62.2}
    server.on(f"GET {ROUTE}/ftjob-1", job(progress=progress), job("succeeded", progress=progress))
    metrics = event(1, type="metrics", message="step 3", data={"train_loss": 0.25})
    server.on(f"GET {ROUTE}/ftjob-1/events", page([metrics]), page([event(2), metrics]))

    done = plait("jobs", "watch", "ftjob-1")

    assert done.exit_code == 0
    assert "epoch 1/2  step 3/6  loss 0.2500  ETA 1:02" in done.stdout
    assert "event 2" in done.stdout


def test_a_shown_job_tells_how_it_stands(plait, server):
    server.on(f"GET {ROUTE}/ftjob-1", job(progress={"epoch": 1, "n_epochs": 2, "samples_per_second": 411.7}))

    done = plait("jobs", "show", "ftjob-1")

    assert "epoch 1/2  412 samples/s" in done.stdout


def test_a_shown_failure_tells_its_issues(plait, server):
    issue = {"code": "invalid_json", "message": "no JSON", "line": 17}
    server.on(f"GET {ROUTE}/ftjob-1", job("failed", error={"code": "c", "message": "m", "param": None}))
    server.on(f"GET {ROUTE}/ftjob-1/events", page([event(1, data={"issues": [issue]})]))

    assert "line 17: no JSON [invalid_json]" in plait("jobs", "show", "ftjob-1").stderr


def test_a_pause_tells_how_to_go_on_and_a_running_job_is_only_asked(plait, server):
    server.on(f"POST {ROUTE}/ftjob-1/pause", job("running"), job("paused"))
    server.on(f"POST {ROUTE}/ftjob-1/resume", job("queued"))

    assert plait("jobs", "pause", "ftjob-1").stdout == "ftjob-1 is asked to pause (running).\n"
    told = plait("jobs", "pause", "ftjob-1").stdout
    assert told == "ftjob-1 is paused. Go on with it: plait jobs resume ftjob-1\n"
    assert plait("jobs", "resume", "ftjob-1").stdout == "ftjob-1 goes on (queued).\n"


def test_a_cancel_and_the_events_are_told(plait, server):
    server.on(f"POST {ROUTE}/ftjob-1/cancel", job("cancelled"))
    server.on(f"GET {ROUTE}/ftjob-1/events", page([event(2), event(1)]))

    assert plait("jobs", "cancel", "ftjob-1").stdout == "ftjob-1 is cancelled.\n"
    assert [line[-7:] for line in plait("jobs", "events", "ftjob-1").stdout.splitlines()] == [
        "event 1",
        "event 2",
    ]


def test_result_files_are_listed_and_fetched_by_name(plait, server, tmp_path):
    server.on(f"GET {ROUTE}/ftjob-1", job("succeeded", result_files=["file-1", "file-2"]))
    server.on("GET /files/file-1", {"id": "file-1", "filename": "report.html", "bytes": 5})
    server.on("GET /files/file-2", {"id": "file-2", "filename": "results.csv", "bytes": 4})
    server.on("GET /files/file-1/content", Answer(200, b"<html"))

    listed = plait("jobs", "results", "ftjob-1")
    fetched = plait("jobs", "results", "ftjob-1", "-o", ".", "--name", "report.html")
    refused = plait("jobs", "results", "ftjob-1", "--name", "report.pdf")

    assert "report.html" in listed.stdout
    assert "results.csv" in listed.stdout
    assert fetched.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert refused.exit_code == 2
    assert "report.html, results.csv" in refused.stderr


def test_the_version_needs_no_server(monkeypatch):
    monkeypatch.setenv("PLAIT_BASE_URL", "nonsense")

    assert CliRunner().invoke(main, ["version"]).stdout == "2026.11.0\n"


def test_an_address_that_is_none_is_told_with_where_it_stands(monkeypatch):
    monkeypatch.setenv("PLAIT_BASE_URL", "nonsense")

    done = CliRunner().invoke(main, ["jobs", "list"])

    assert done.exit_code == 1
    assert "Error: PLAIT_BASE_URL: 'nonsense' is not an address" in done.stderr


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command below `group`."""
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("words", list(commands(main)), ids=" ".join)
def test_every_command_has_help_and_shows_how_it_is_called(words):
    done = CliRunner().invoke(main, [*words, "--help"])

    assert done.exit_code == 0
    is_group = "Commands:" in done.stdout
    assert is_group or words == ("version",) or f"  plait {' '.join(words)} " in done.stdout

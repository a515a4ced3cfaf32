"""A job on a terminal, its curves, and what a shell completes."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from plait import Series
from plait.cli import charts, main
from support.scripted import page

JOB = "/fine_tuning/jobs/ftjob-1"


def job(status: str = "running", step: int = 3) -> dict[str, Any]:
    hyper = {"metric_for_best_model": "f1_macro"}
    progress = {"stage": "training", "epoch": 1, "n_epochs": 2, "step": step, "total_steps": 6}
    about = {"id": "ftjob-1", "model": "late-fusion", "multimodal": {"hyperparameters": hyper}}
    return about | {"status": status, "progress": progress}


def series(**values: list[float]) -> dict[str, Any]:
    return {"series": {name: {"steps": [*range(1, len(v) + 1)], "values": v} for name, v in values.items()}}


@pytest.fixture
def terminal(monkeypatch):
    def sized(columns: int, lines: int) -> None:
        for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm-256color")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))

    return sized


def drawn(text: str) -> bool:
    return any("\u2800" < c <= "\u28ff" for c in text)


def test_a_curve_falls_from_the_upper_left_to_the_lower_right():
    lines = charts.curve([(0, 1.0), (1, 0.0)], width=4, height=2)

    assert lines == ["⠑⢄⠀⠀", "⠀⠀⠑⢄"]


@pytest.mark.parametrize(
    "points",
    [[], [(1, 0.5)], [(1, 0.5), (2, 0.5)], [(1, float("nan")), (2, 1e30), (3, -1e30)], [(5, 1.0)] * 3],
)
def test_a_curve_has_its_size_whatever_was_measured(points):
    lines = charts.curve(points, width=7, height=3)

    assert [len(line) for line in lines] == [7, 7, 7]
    assert drawn("".join(lines)) == bool(points)


def test_a_chart_tells_the_ends_of_its_axes_and_the_last_value(capsys):
    from rich.console import Console

    Console(width=60).print(charts.chart("train_loss", Series([10, 20, 30], [2.0, 0.5, 0.00012]), 50, 4))

    told = capsys.readouterr().out
    assert "train_loss 1.2e-04" in told
    assert "step 10 to 30" in told
    assert [line.split()[0] for line in told.splitlines()[1:5:3]] == ["2", "1.2e-04"]


def test_a_terminal_shows_the_curves_of_loss_and_of_the_metric_that_counts(plait, server, terminal):
    terminal(120, 40)
    server.on(f"GET {JOB}", job(), job(step=4), job("succeeded", 6))
    server.on(f"GET {JOB}/events", page([]))
    server.on(f"GET {JOB}/metrics", series(train_loss=[0.9, 0.3], valid_f1_macro=[0.5, 0.75]))

    told = plait("jobs", "watch", "ftjob-1").stdout

    assert "train_loss 0.3" in told
    assert "valid_f1_macro 0.75" in told
    assert "loss 0.3000" in told
    assert drawn(told)
    asked = [a.query for a in server.asked if a.path.endswith("/metrics")]
    assert asked[0] == {"names": "train_loss,valid_f1_macro", "max_points": "200"}


@pytest.mark.parametrize(("columns", "lines"), [(30, 40), (120, 10)])
def test_a_small_terminal_shows_the_bar_alone(plait, server, terminal, columns, lines):
    terminal(columns, lines)
    server.on(f"GET {JOB}", job(), job("succeeded"))
    server.on(f"GET {JOB}/events", page([]))
    server.on(f"GET {JOB}/metrics", series(train_loss=[0.9, 0.3]))

    done = plait("jobs", "watch", "ftjob-1")

    assert done.exit_code == 0
    assert not drawn(done.stdout)


def test_a_narrow_terminal_keeps_the_steps_the_time_left_and_one_curve(plait, server, terminal):
    terminal(44, 30)
    going = job(step=2580)
    going["progress"] |= {"total_steps": 6600, "n_epochs": 600, "samples_per_second": 706.1, "eta_s": 42}
    server.on(f"GET {JOB}", going, going | {"status": "succeeded"})
    server.on(f"GET {JOB}/events", page([]))
    server.on(f"GET {JOB}/metrics", series(train_loss=[0.9, 0.3], valid_f1_macro=[0.5, 0.75]))

    told = plait("jobs", "watch", "ftjob-1").stdout

    assert "step 2580/6600  ETA 0:42" in told
    assert "samples/s" not in told
    assert "valid_f1_macro 0.75" in told
    assert "train_loss" not in told


def test_without_a_terminal_no_curve_is_asked_for(plait, server):
    server.on(f"GET {JOB}", job(), job("succeeded"))
    server.on(f"GET {JOB}/events", page([]))

    assert plait("jobs", "watch", "ftjob-1").exit_code == 0
    assert not [asked for asked in server.asked if asked.path.endswith("/metrics")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_says_where_it_belongs(shell):
    done = CliRunner().invoke(main, ["completion", shell])

    assert done.exit_code == 0
    assert f"# Keep this where your shell looks for it:  plait completion {shell} >" in done.stdout
    assert done.stdout.startswith("#compdef plait") == (shell == "zsh")


@pytest.fixture
def completed(tmp_path) -> Callable[..., list[str]]:
    """What bash would offer behind a line, with `plait` as a program on its path."""
    program = tmp_path / "bin" / "plait"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom plait.cli import main\nmain()\n")
    program.chmod(0o755)
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout

    def offered(line: str, base_url: str) -> list[str]:
        # Bash cuts words at colons and equal signs; without a terminal the test does.
        words = line.replace(":", " : ").replace("=", " = ").split(" ")
        lines = (
            script,
            f"COMP_LINE={shlex.quote(line)}",
            f"COMP_WORDS=({' '.join(map(shlex.quote, words))})",
            f"COMP_CWORD={len(words) - 1}",
            "compopt() { echo FILES; }",
            "_plait_completion plait",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        )
        env = {"PATH": f"{program.parent}:/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path)}
        env |= {"HOME": str(tmp_path), "PLAIT_BASE_URL": base_url}
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)], env=env, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.split()

    return offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_commands_and_the_ids_of_the_server_through_their_colons(server, completed):
    models = [{"id": "ft:late-fusion:a:1"}, {"id": "ft:late-fusion:b:2"}, {"id": "late-fusion"}]
    server.on("GET /models", page(models))
    server.on(
        "GET /jobs", page([{"id": "ftjob-1", "status": "queued"}, {"id": "check_1", "status": "queued"}])
    )

    def offered(line: str) -> list[str]:
        return completed(line, server.base_url)

    assert offered("plait mod") == ["models"]
    assert offered("plait predict ") == ["ft:late-fusion:a:1", "ft:late-fusion:b:2"]
    assert offered("plait models show ft:late-fusion:b") == ["b:2"]
    assert offered("plait jobs watch ft") == ["ftjob-1"]
    assert offered("plait data check rows") == ["FILES"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_without_a_server_nothing_is_completed_and_nothing_said(server, completed):
    server.stop()

    assert completed("plait predict ", server.base_url) == []
    assert completed("plait predict ", "nonsense") == []
    server.start()

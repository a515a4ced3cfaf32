"""`plait-server up`: everything starts, is watched, and ends with it."""

import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from support.installation import installation
from support.stack import ROOT, until


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_up_says_where_it_is_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    with installation(tmp_path / "data") as plait:
        about = plait.about
        base = about["base_url"].removesuffix("/v1")

        with urllib.request.urlopen(f"{base}/readyz", timeout=5) as answer:
            assert answer.status == 200

        assert stat.S_IMODE((plait.data / "plait.json").stat().st_mode) == 0o600
        pids = about["pids"]
        assert all(
            psutil.pid_exists(p) for p in [pids["api"], pids["broker"], pids["upkeep"], *pids["workers"]]
        )


def test_a_port_that_is_taken_is_told_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        command = [sys.executable, "-m", "manage", "up", "--data", str(tmp_path), "--port", port]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert (
        f"127.0.0.1:{port} cannot be listened on: Address already in use; choose another --port"
        in done.stderr
    )


@pytest.mark.slow
def test_a_stop_takes_everything_down_and_the_file_away(tmp_path: Path) -> None:
    with installation(tmp_path / "data") as plait:
        family = plait.family()

        plait.process.send_signal(signal.SIGTERM)

        assert plait.process.wait(60) == 0
        assert gone(family)
        assert not (plait.data / "plait.json").exists()


@pytest.mark.slow
def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    with installation(tmp_path / "data") as plait:
        family = plait.family()

        plait.process.kill()

        until(lambda: gone(family), bool, limit_s=30, about=lambda: plait.logs)


@pytest.mark.slow
def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    with installation(tmp_path / "data") as plait:
        old = plait.about["pids"]["workers"][0]

        psutil.Process(old).kill()

        until(lambda: plait.about["pids"]["workers"][0], lambda pid: pid != old, limit_s=30)


@pytest.mark.slow
def test_a_second_up_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with installation(tmp_path / "data") as plait:
        command = [sys.executable, "-m", "manage", "up", "--port", "0", "--data", str(plait.data)]

        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

        assert second.returncode == 1
        assert "already up" in second.stderr
        assert (plait.data / "plait.json").exists()


@pytest.mark.slow
def test_the_key_stays_the_same_over_a_restart(tmp_path: Path) -> None:
    with installation(tmp_path / "data") as plait:
        first = plait.about["api_key"]

    with installation(tmp_path / "data") as plait:
        assert plait.about["api_key"] == first

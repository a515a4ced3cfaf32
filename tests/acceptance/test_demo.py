"""The demo, whole: real encoders, real digits and speech, the public API, and nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import settings as configuration
from support.stack import ROOT


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_shows_that_fusion_gains_and_leaves_no_process_behind(tmp_path: Path) -> None:
    settings = configuration.Settings(data=tmp_path, encoders=str(ROOT / ".plait" / "encoders"))
    before = {p.pid for p in psutil.process_iter()}

    done = subprocess.run(
        [sys.executable, "demo/run.py"],
        cwd=ROOT,
        env=configuration.environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["test_accuracy"]["image+audio"] >= 0.88
    assert summary["fusion_gain"] >= 0.08
    assert summary["cached_epoch_speedup"] >= 20
    assert len(summary["predictions"]) == 3
    for told in summary["predictions"]:
        assert told["truth"] in "0123456789"
        for view in ("both", "picture", "sound"):
            assert told[view]["label"] in "0123456789"
            assert 0.1 <= told[view]["score"] <= 1.0
    left = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
    assert [p.pid for p in left if str(tmp_path) in " ".join(p.info["cmdline"] or [])] == []

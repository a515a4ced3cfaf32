"""The demo with films, whole but with fewer of them: real encoders, films with sound, the public API, nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import settings as configuration
from engine.samples.moving_av_digits import DIRECTIONS
from support.stack import ROOT

ROWS = "200"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_with_films_compares_frames_sound_and_both_and_leaves_no_process_behind(
    tmp_path: Path,
) -> None:
    settings = configuration.Settings(data=tmp_path, encoders=str(ROOT / ".plait" / "encoders"))
    before = {p.pid for p in psutil.process_iter()}

    done = subprocess.run(
        [sys.executable, "demo/video.py", ROWS],
        cwd=ROOT,
        env=configuration.environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "demo-video" / "summary.json").read_text())
    test = summary["test"]
    # Of a sound nobody hears where a digit goes; of frames one sees it.
    assert test["sound"]["direction_f1"] <= 0.3
    assert test["frames"]["direction_f1"] >= test["sound"]["direction_f1"] + 0.2
    assert test["frames+sound"]["f1_macro"] > test["sound"]["f1_macro"]
    assert summary["cached_epoch_speedup"] >= 5
    labels = {*"0123456789", *DIRECTIONS}
    assert len(summary["predictions"]) == 3
    for told in summary["predictions"]:
        assert set(told) == {"id", "truth", "both", "frames", "sound"}
        assert {label for view in ("truth", "both", "frames", "sound") for label in told[view]} <= labels
    left = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
    assert [p.pid for p in left if str(tmp_path) in " ".join(p.info["cmdline"] or [])] == []

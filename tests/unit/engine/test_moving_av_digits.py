"""Moving AV-digits: the same recipe makes the same bytes, and every clip is what its label says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.manifest import Schema
from engine.data import decode, probe
from engine.data.manifest import open_dataset
from engine.data.probe import is_silent
from engine.samples import moving_av_digits
from engine.samples.moving_av_digits import DIRECTIONS, Recipe

SCHEMA = Schema.model_validate({"columns": {"clip": {"type": "video", "use_audio": True}}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("digits") / "set"
    moving_av_digits.build(made, Recipe(limit=120))
    return made


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def test_the_same_recipe_makes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    builds = [Recipe(limit=8), Recipe(limit=8), Recipe(limit=8, seed=1)]

    first, again, other = (
        moving_av_digits.build(tmp_path / str(n), recipe).read_bytes() for n, recipe in enumerate(builds)
    )

    assert first == again
    assert first != other


def test_a_finished_set_is_kept_and_one_of_another_label_is_made_of_the_same_clips(tmp_path: Path) -> None:
    built = moving_av_digits.build(tmp_path / "a", Recipe(limit=6))
    before = built.stat().st_mtime_ns

    assert moving_av_digits.build(tmp_path / "a", Recipe(limit=6)).stat().st_mtime_ns == before
    both, clips = _rows(tmp_path / "a"), _clips(tmp_path / "a")
    labels = {}
    for label in ("digit", "direction"):
        moving_av_digits.build(tmp_path / label, Recipe(limit=6, label=label))  # type: ignore[arg-type]
        labels[label] = [row["label"] for row in _rows(tmp_path / label)]
        assert _clips(tmp_path / label) == clips
    pairs = zip(labels["digit"], labels["direction"], strict=True)
    assert [row["label"] for row in both] == [list(pair) for pair in pairs]


def _clips(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "clips").iterdir()}


def test_no_voice_is_in_two_splits_and_only_training_clips_are_silent(folder: Path) -> None:
    rows = _rows(folder)
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["voice"], set()).add(row["split"])

    silent = [row for row in rows if is_silent((folder / row["clip_file_name"]).read_bytes())]

    assert all(len(found) == 1 for found in splits.values())
    assert {s for found in splits.values() for s in found} == {"train", "validation", "test"}
    trained = sum(row["split"] == "train" for row in rows)
    assert len(silent) == trained // moving_av_digits.SILENT_EVERY
    assert {row["split"] for row in silent} == {"train"}


def test_every_clip_is_a_second_of_eight_frames_and_its_sound_no_longer(folder: Path) -> None:
    with open_dataset(folder.with_suffix(".zip"), schema=SCHEMA) as dataset:
        assert dataset.issues == []
        films = [dataset.read(row.values["clip"]) for row in dataset.rows[:10]]  # type: ignore[arg-type]

    found = [probe.probe_video(film) for film in films]
    assert {(f.seconds, f.frames, f.width, f.height, f.codec) for f in found} == {(1.0, 8, 96, 96, "mpeg4")}
    loud = [film for film, about in zip(films, found, strict=True) if about.has_audio]
    assert len(loud) >= 8
    for film in loud:
        assert 0.9 < len(decode.audio(film, sampling_rate=16_000)) / 16_000 <= 1.0


def test_the_digit_goes_where_the_label_says(folder: Path) -> None:
    rows = _rows(folder)

    right = 0
    for row in rows:
        frames = decode.video((folder / row["clip_file_name"]).read_bytes(), num_frames=8).astype(float)
        bright = np.clip(frames.mean(3) - 80, 0, None)
        x, y = (_centre(bright, axis) for axis in (1, 2))
        went = np.array([x[-1] - x[0], y[-1] - y[0]])
        likeness = {way: went @ np.array(step) / np.hypot(*step) for way, step in DIRECTIONS.items()}
        right += max(likeness, key=lambda way: likeness[way]) == row["label"][1]

    assert right >= 0.95 * len(rows)


def _centre(bright: np.ndarray, axis: int) -> np.ndarray:
    """Of each frame's brightness, along the other axis. [frames]"""
    weight = bright.sum(axis) + 1e-9
    return (weight * np.arange(weight.shape[1])).sum(1) / weight.sum(1)

"""AV-digits: the same seed makes the same bytes, and no voice is in two splits."""

import json
from pathlib import Path

from engine.samples import av_digits


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    first = av_digits.build(tmp_path / "a", limit=30)
    second = av_digits.build(tmp_path / "b", limit=30)

    assert first.read_bytes() == second.read_bytes()


def test_another_seed_makes_another_set(tmp_path: Path) -> None:
    first = av_digits.build(tmp_path / "a", limit=10)
    second = av_digits.build(tmp_path / "b", limit=10, seed=1)

    assert first.read_bytes() != second.read_bytes()


def test_a_finished_set_is_kept(tmp_path: Path) -> None:
    built = av_digits.build(tmp_path / "a", limit=5)
    before = built.stat().st_mtime_ns

    assert av_digits.build(tmp_path / "a", limit=5).stat().st_mtime_ns == before


def test_no_voice_is_in_two_splits_and_every_row_has_both_media(tmp_path: Path) -> None:
    av_digits.build(tmp_path / "a", limit=200)
    rows = [json.loads(line) for line in (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()]

    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["voice"], set()).add(row["split"])
        assert (tmp_path / "a" / row["image_file_name"]).is_file()
        assert (tmp_path / "a" / row["audio_file_name"]).is_file()

    assert all(len(found) == 1 for found in splits.values())
    assert {s for found in splits.values() for s in found} == {"train", "validation", "test"}

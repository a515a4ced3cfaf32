"""AV-digits: the same seed makes the same bytes, and no voice is in two splits."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from engine.data.manifest import open_dataset
from engine.samples import av_digits
from engine.samples.speech import Word, speak, voices


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


def test_a_lost_zip_is_made_anew_with_the_same_bytes(tmp_path: Path) -> None:
    built = av_digits.build(tmp_path / "a", limit=5)
    before = built.read_bytes()
    built.unlink()

    assert av_digits.build(tmp_path / "a", limit=5).read_bytes() == before


def test_the_zip_holds_the_folders_files_uncompressed_and_undated(tmp_path: Path) -> None:
    built = av_digits.build(tmp_path / "a", limit=5)

    with zipfile.ZipFile(built) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
        kinds = {(info.compress_type, info.date_time) for info in archive.infolist()}

    assert kinds == {(zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))}
    assert len(members) == 2 * 5 + 1
    assert all((tmp_path / "a" / name).read_bytes() == content for name, content in members.items())


def test_every_row_is_a_picture_of_96_px_and_one_second_of_sound(tmp_path: Path) -> None:
    built = av_digits.build(tmp_path / "a", limit=10)

    with open_dataset(built, schema=None) as dataset:
        media = [
            {name: dataset.read(row.values[name]) for name in ("image", "audio")} for row in dataset.rows
        ]

    sounds = [soundfile.read(io.BytesIO(row["audio"])) for row in media]
    assert {Image.open(io.BytesIO(row["image"])).size for row in media} == {(96, 96)}
    assert {(len(sound), rate) for sound, rate in sounds} == {(16_000, 16_000)}
    assert all(np.abs(sound).max() > 0.5 for sound, _ in sounds)


def test_a_shorter_list_of_words_sounds_as_the_beginning_of_a_longer_one() -> None:
    words = [Word("seven", "en-us", voice, 170, 50) for voice in voices()[:12]]

    _, longer = speak(words)
    _, shorter = speak(words[:5])

    assert all(np.array_equal(a, b) for a, b in zip(shorter, longer, strict=False))

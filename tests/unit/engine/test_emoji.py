"""The emoji set: what is taken of the two packages, and what is told where they cannot be had."""

import io
import json
import os
import shutil
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from domain.errors import EngineError
from engine.samples import emoji, npm
from engine.samples.npm import Package


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def picture() -> bytes:
    """A red square in the middle of nothing."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 16:48] = (255, 0, 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def get(tmp_path: Path) -> emoji.Fetch:
    """The two packages as they are published, with ten objects, a person, a flag and one that has no picture."""
    codes = [f"1F{n:03X}" for n in range(14)]
    drawn = [
        {"unified": f"{c}-FE0F", "image": f"{c.lower()}.png", "has_img_google": c != codes[13]} for c in codes
    ]
    groups = [7] * 10 + [1, 9, None, 7]
    named: list[dict[str, Any]] = [
        {"hexcode": c, "label": f"thing {n}", "group": g}
        for n, (c, g) in enumerate(zip(codes, groups, strict=True))
    ]
    del named[12]["group"]
    pictures = {f"package/img/google/64/{c.lower()}.png": picture() for c in codes}
    made = {
        emoji.PICTURES.name: packed(
            tmp_path / "p.tgz", {"package/emoji.json": json.dumps(drawn).encode(), **pictures}
        ),
        emoji.NAMES.name: packed(tmp_path / "n.tgz", {"package/en/data.json": json.dumps(named).encode()}),
    }
    return lambda package, _: made[package.name]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def test_each_emoji_is_a_picture_on_white_with_its_name_and_its_group(
    tmp_path: Path, get: emoji.Fetch
) -> None:
    emoji.build(tmp_path / "set", get=get)

    found = rows(tmp_path / "set")
    assert [row["text"] for row in found] == [f"thing {n}" for n in range(10)]
    assert {row["label"] for row in found} == {"objects"}
    assert sorted(row["split"] for row in found) == ["test"] * 2 + ["train"] * 7 + ["validation"]
    with Image.open(tmp_path / "set" / found[0]["image_file_name"]) as drawn:
        assert (drawn.mode, drawn.getpixel((0, 0)), drawn.getpixel((32, 32))) == (
            "RGB",
            (255, 255, 255),
            (255, 0, 0),
        )


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_splits(
    tmp_path: Path, get: emoji.Fetch
) -> None:
    first, second, other = (
        emoji.build(tmp_path / name, seed=seed, get=get) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )

    assert first.read_bytes() == second.read_bytes()
    assert [r["split"] for r in rows(tmp_path / "a")] != [r["split"] for r in rows(tmp_path / "c")]
    assert other.is_file()


def script(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in for npm, alone on the PATH with the shell's own."""
    program = folder / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.defpath}")


def test_without_npm_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EngineError, match="install Node") as refused:
        emoji.build(tmp_path / "set")

    assert refused.value.code == "sample_unavailable"
    assert not (tmp_path / "set").exists()


def test_what_npm_says_of_a_registry_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, "echo 'npm error network unreachable' >&2; exit 1", monkeypatch)

    with pytest.raises(EngineError, match="network unreachable") as refused:
        npm.fetch(Package("some-thing", "1.0.0", "0" * 64), tmp_path)

    assert refused.value.code == "sample_unavailable"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_what_npm_itself_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")

    with pytest.raises(EngineError, match="ECONNREFUSED") as refused:
        npm.fetch(Package("some-thing", "1.0.0", "0" * 64), tmp_path)

    assert "complete log" not in refused.value.message


def test_a_package_with_other_bytes_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "echo swapped > some-thing-1.0.0.tgz", monkeypatch)
    known = sha256(b"swapped\n").hexdigest()

    assert npm.fetch(Package("some-thing", "1.0.0", known), tmp_path).read_bytes() == b"swapped\n"
    with pytest.raises(EngineError) as refused:
        npm.fetch(Package("some-thing", "1.0.0", "0" * 64), tmp_path)

    assert refused.value.code == "sample_corrupt"

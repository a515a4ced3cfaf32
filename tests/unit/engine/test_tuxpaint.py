"""Tux Paint stamps: drawn, described and spoken of, out of a package with Debian's layout."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from domain.errors import EngineError
from engine.data.manifest import open_dataset
from engine.samples import tuxpaint
from manage import main
from support.datasets import tone, wav

#: Ten folders are classes; of the eleventh there are fewest.
FOLDERS = [f"kind{n:02}" for n in range(11)]
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="30pt" height="60pt"><rect width="400" height="400" fill="red"/></svg>'

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is Debian's")


def _stamps(root: Path) -> Path:
    """In each folder six described and spoken stamps, two of one description; and what must be passed over."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(FOLDERS):
        folder = root / name / "things"
        folder.mkdir(parents=True)
        for n in range(6 if place < 10 else 2):
            Image.new("RGBA", (40, 20), (255, 0, 0, 128)).save(folder / f"thing{n}.png")
            (folder / f"thing{n}.txt").write_text(f"A thing {max(n, 1)} of {name}.\nes.utf8=Una cosa.\n")
            (folder / f"thing{n}_desc_es.ogg").write_bytes(wav(tone(0, rng)))
    first = root / FOLDERS[0] / "things"
    Image.new("RGB", (9, 9)).save(first / "silent.png")
    (first / "silent.txt").write_text("It has no voice.\n")
    Image.new("RGB", (9, 9)).save(first / "wordless.png")
    (first / "drawn.svg").write_text(SVG)
    (first / "drawn.txt").write_text("A drawing.\n")
    (first / "drawn_desc_es.ogg").write_bytes(b"ogg")
    (first / "thing0.svg").write_text(SVG)
    (first / "linked.png").symlink_to("/etc/passwd")
    (first / "linked.txt").write_text("A link.\n")
    for name in ("told-by-a-link", "told-by-nothing"):
        Image.new("RGB", (9, 9)).save(first / f"{name}.png")
        (first / f"{name}_desc_es.ogg").write_bytes(b"ogg")
    (first / "told-by-a-link.txt").symlink_to("/etc/passwd")
    (first / "told-by-nothing.txt").touch()
    return root


def _package(folder: Path) -> Path:
    _stamps(folder / "package" / tuxpaint.STAMPS)
    about = folder / "package" / "DEBIAN"
    about.mkdir()
    fields = "Package: tuxpaint-stamps-default\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: stamps\n"
    (about / "control").write_text(fields)
    made = folder / "stamps.deb"
    subprocess.run(["dpkg-deb", "-b", str(folder / "package"), str(made)], check=True, capture_output=True)
    return made


def test_stamps_are_those_with_words_and_a_voice_in_the_ten_largest_folders(tmp_path: Path) -> None:
    found = tuxpaint.stamps(_stamps(tmp_path))

    assert len(found) == 61
    assert {stamp.label for stamp in found} == set(FOLDERS[:10])
    ids = [stamp.id for stamp in found if stamp.label == FOLDERS[0]]
    assert ids == [f"kind00/things/{name}" for name in ("drawn", *(f"thing{n}" for n in range(6)))]
    assert found[1].text == "A thing 1 of kind00."


def test_a_stamp_is_drawn_in_the_middle_of_a_white_square(tmp_path: Path) -> None:
    root = _stamps(tmp_path)

    flat = np.asarray(tuxpaint.drawn(root / "kind00/things/thing0.png"))
    vector = np.asarray(tuxpaint.drawn(root / "kind00/things/drawn.svg"))

    assert flat.shape == vector.shape == (tuxpaint.PX, tuxpaint.PX, 3)
    assert (flat[0] == 255).all()
    assert flat[128, 128].tolist() == [255, 127, 127]
    # A drawing in points is as high as the square allows, half as wide, and red.
    red = (vector == (255, 0, 0)).all(2)
    assert (red[128].sum(), red[:, 128].sum()) == pytest.approx((112, 224), abs=2)


@needs_dpkg
def test_the_same_package_makes_the_same_bytes_and_no_description_is_in_two_splits(tmp_path: Path) -> None:
    package = _package(tmp_path)

    first = tuxpaint.build(tmp_path / "a", package=package)
    second = tuxpaint.build(tmp_path / "b", package=package)
    rows = [json.loads(line) for line in (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()]
    with open_dataset(first) as dataset:
        types = {name: str(column.type) for name, column in dataset.schema.columns.items()}

    assert first.read_bytes() == second.read_bytes()
    assert len(rows) == 61
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["caption"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert (types["image"], types["speech"], types["caption"]) == ("image", "audio", "text")


@needs_dpkg
def test_a_limit_takes_some_of_all_classes(tmp_path: Path) -> None:
    tuxpaint.build(tmp_path / "a", package=_package(tmp_path), limit=30)
    rows = [json.loads(line) for line in (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()]

    assert len(rows) == 30
    assert len({row["label"] for row in rows}) > 5


@needs_dpkg
def test_a_file_that_is_no_package_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "no.deb").write_bytes(b"no package")

    with pytest.raises(EngineError, match="dpkg-deb could not unpack"):
        tuxpaint.build(tmp_path / "a", package=tmp_path / "no.deb")

    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.zip").exists()


def test_without_apt_it_says_what_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)

    with pytest.raises(EngineError, match=r"comes with Debian and Ubuntu.*--package"):
        tuxpaint.build(tmp_path / "a")


def test_what_apt_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(EngineError, match=r"apt-get could not fetch .*apt-get update.*Unable to locate"):
        tuxpaint.build(tmp_path / "a")


@pytest.mark.parametrize(
    ("options", "word"),
    [(("av-digits", "--package"), "for tuxpaint"), (("tuxpaint", "--label"), "for moving-av-digits")],
)
def test_an_option_of_another_data_set_is_refused(options: Sequence[str], word: str, tmp_path: Path) -> None:
    value = "digit" if options[1] == "--label" else str(tmp_path / "a.deb")

    answer = CliRunner().invoke(main, ["datasets", "build", *options, value, "--out", str(tmp_path / "a")])

    assert answer.exit_code == 2
    assert word in answer.output

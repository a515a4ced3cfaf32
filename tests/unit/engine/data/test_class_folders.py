"""A zip or folder without a table, whose folders are classes."""

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from domain.manifest import Schema
from domain.specs import Multimodal
from engine.data.check import check
from engine.data.manifest import Dataset, open_dataset, open_folder
from support.datasets import png, shape


def zipped(folder: Path, names: Sequence[str] | Mapping[str, bytes], label: str | None = None) -> Dataset:
    files = names if isinstance(names, Mapping) else dict.fromkeys(names, b"")
    with zipfile.ZipFile(folder / "a.zip", "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
    return open_dataset(folder / "a.zip", schema=Schema(label=label) if label else None)


def rows(dataset: Dataset) -> list[tuple[str, object, str | None]]:
    return [(row.id, row.label, row.split) for row in dataset.rows]


def test_a_folder_is_the_class_of_what_lies_in_it(tmp_path: Path) -> None:
    with zipped(tmp_path, ["dogs/2.jpg", "cats/1.jpg", "cats/0.png"]) as dataset:
        assert rows(dataset) == [
            ("cats/0.png", "cats", None),
            ("cats/1.jpg", "cats", None),
            ("dogs/2.jpg", "dogs", None),
        ]
        assert {name: str(c.type) for name, c in dataset.schema.columns.items()} == {"image": "image"}
        assert dataset.read(dataset.rows[0].values["image"]) == b""
        assert dataset.issues == []


@pytest.mark.parametrize("outer", ["", "pets/", "my/pets/"])
def test_train_and_test_outside_of_classes_are_splits(tmp_path: Path, outer: str) -> None:
    names = [
        outer + name for name in ("train/cats/1.jpg", "train/dogs/2.jpg", "val/cats/3.jpg", "test/dogs/4.jpg")
    ]

    with zipped(tmp_path, names) as dataset:
        assert sorted((label, split) for _, label, split in rows(dataset)) == [
            ("cats", "train"),
            ("cats", "validation"),
            ("dogs", "test"),
            ("dogs", "train"),
        ]


def test_classes_of_which_some_are_named_like_splits_are_classes(tmp_path: Path) -> None:
    with zipped(tmp_path, ["train/1.jpg", "plane/2.jpg"]) as dataset:
        assert [(label, split) for _, label, split in rows(dataset)] == [("plane", None), ("train", None)]


def test_what_systems_leave_behind_is_passed_over_and_other_files_are_told_of(tmp_path: Path) -> None:
    names = [
        "cats/1.jpg",
        "dogs/2.jpg",
        "cats/.DS_Store",
        "__MACOSX/cats/._1.jpg",
        "dogs/Thumbs.db",
        "LICENSE",
    ]

    with zipped(tmp_path, names) as dataset:
        assert len(dataset.rows) == 2
        assert [(i.code, i.severity) for i in dataset.issues] == [("unsupported_format", "warning")]
        assert "LICENSE" in dataset.issues[0].message


def test_a_file_outside_of_all_folders_has_no_label(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["1.png", *(f"{kind}/{n}.png" for kind in ("cats", "dogs") for n in range(4))]

    with zipped(tmp_path, {name: png(shape(0, 16, rng)) for name in names}) as dataset:
        report = check(dataset, Multimodal())

    assert [(i.line, i.code) for i in report.errors] == [(1, "label_missing")]


def test_the_schema_names_the_label(tmp_path: Path) -> None:
    with zipped(tmp_path, ["cats/1.jpg", "dogs/2.jpg"], label="animal") as dataset:
        assert [row.label for row in dataset.rows] == ["cats", "dogs"]


def test_pictures_and_sounds_of_a_class_each_fill_their_column(tmp_path: Path) -> None:
    with zipped(tmp_path, ["cats/1.jpg", "dogs/2.wav"]) as dataset:
        assert [sorted(k for k, v in row.values.items() if v) for row in dataset.rows] == [
            ["image"],
            ["audio"],
        ]


@pytest.mark.parametrize(
    "names", [["images/1.png", "images/2.png"], ["1.png", "2.png"], ["a/1.txt", "b/2.txt"]]
)
def test_media_without_a_table_and_classes_are_named(tmp_path: Path, names: list[str]) -> None:
    with zipped(tmp_path, names) as dataset:
        assert [i.code for i in dataset.issues] == ["unsupported_format"]
        assert "metadata.jsonl" in dataset.issues[0].message


def test_a_folder_on_this_machine_is_read_the_same_way(tmp_path: Path) -> None:
    for name in ("cats/1.png", "dogs/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "around").symlink_to(tmp_path, target_is_directory=True)

    with open_folder(tmp_path) as dataset:
        assert [row.label for row in dataset.rows] == ["cats", "dogs"]


def test_a_file_beside_the_classes_of_a_split_has_no_label_and_takes_no_splits_away(tmp_path: Path) -> None:
    names = [
        f"{split}/{kind}/{n}.jpg" for split in ("train", "test") for kind in ("cats", "dogs") for n in (1, 2)
    ]

    with zipped(tmp_path, [*names, "train/cover.png", "cover.png"]) as dataset:
        told = {row.id: (row.label, row.split) for row in dataset.rows}

    assert told["cover.png"] == (None, None)
    assert told["train/cover.png"] == (None, "train")
    assert told["test/dogs/2.jpg"] == ("dogs", "test")


def test_splits_without_classes_are_no_classes(tmp_path: Path) -> None:
    with zipped(tmp_path, ["train/1.png", "test/2.png"]) as dataset:
        assert [i.code for i in dataset.issues] == ["unsupported_format"]


@pytest.mark.parametrize("label", ["id", "file_name", "split"])
def test_a_label_that_is_named_as_a_row_names_something_else_is_refused(tmp_path: Path, label: str) -> None:
    with zipped(tmp_path, ["cats/1.jpg", "dogs/2.jpg"], label=label) as dataset:
        assert ("schema_mismatch", "schema.label") in [(i.code, i.param) for i in dataset.issues]


def test_a_name_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    for name in (b"cats/1.png", b"dogs/2.png", b"dogs/\xff.png"):
        path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    with open_folder(tmp_path) as dataset:
        assert len(dataset.rows) == 2
        assert [(i.line, i.code) for i in dataset.issues] == [(3, "encoding_error")]

"""Several files in one cell of a table: how they are written, what is wrong with them, and what a check sees."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from domain.manifest import Code, Schema
from domain.specs import Multimodal
from engine.data.check import Report, check
from engine.data.dataset import Example
from engine.data.manifest import Dataset, MediaRef, Several, open_dataset, open_folder
from engine.data.preview import preview
from support.datasets import png, tone, wav, zip_of

PIXELS = np.zeros((4, 4, 3), np.uint8)
PICTURE, OTHER = png(PIXELS), png(PIXELS + 9)
SOUND = wav(tone(0, np.random.default_rng(0)))
MEDIA = {"a.png": PICTURE, "b.png": OTHER, "s.wav": SOUND, "t.wav": SOUND}


def refs(*names: str) -> Several:
    return Several(tuple(MediaRef(name) for name in names))


def csv_zip(folder: Path, table: str, media: Mapping[str, bytes]) -> Path:
    path = folder / "data.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("metadata.csv", table)
        for name, data in media.items():
            out.writestr(name, data)
    return path


def opened(folder: Path, *cells: Any, key: str = "image_file_names", **schema: Any) -> Dataset:
    rows = [{key: cell, "label": "ab"[n % 2]} for n, cell in enumerate(cells)]
    return open_dataset(zip_of(folder / "d.zip", rows, MEDIA), schema=Schema.model_validate(schema))


def checked(dataset: Dataset, **spec: Any) -> Report:
    with dataset:
        return check(dataset, Multimodal.model_validate(spec))


def told(issues: Any) -> list[tuple[int | None, str | None, str]]:
    return [(issue.line, issue.column, str(issue.code)) for issue in issues]


def test_a_list_in_jsonl_is_several_files_and_a_list_of_one_is_that_one(tmp_path: Path) -> None:
    dataset = opened(tmp_path, ["a.png", "b.png"], ["a.png"], "b.png", [], None)

    assert {name: str(column.type) for name, column in dataset.schema.columns.items()} == {"image": "image"}
    assert [row.values["image"] for row in dataset.rows] == [
        refs("a.png", "b.png"),
        MediaRef("a.png"),
        MediaRef("b.png"),
        None,
        None,
    ]
    assert dataset.issues == []


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("a.png;b.png", refs("a.png", "b.png")),
        (" a.png ; b.png ;", refs("a.png", "b.png")),
        ("a.png;", MediaRef("a.png")),
        (";", None),
        (" ; ;", None),
        ("odd;name.png", MediaRef("odd;name.png")),
        ("odd;name.png;a.png", refs("odd", "name.png", "a.png")),
        (
            "data:image/png;base64,QQ==;data:image/png;base64,Qg==",
            refs("data:image/png;base64,QQ==", "data:image/png;base64,Qg=="),
        ),
        ("a.png; data:image/png;base64,QQ==", refs("a.png", "data:image/png;base64,QQ==")),
        ("data:image/png;base64,QQ==", MediaRef("data:image/png;base64,QQ==")),
        ("data:image/svg+xml,<a;b>;c", MediaRef("data:image/svg+xml,<a;b>;c")),
    ],
)
def test_semicolons_in_csv_part_files_but_not_what_is_one_file(tmp_path: Path, cell: str, value: Any) -> None:
    path = csv_zip(tmp_path, f'photo_file_names,label\n"{cell}",x\n', {**MEDIA, "odd;name.png": PICTURE})

    with open_dataset(path) as dataset:
        assert dataset.rows[0].values == {"photo": value}


def test_a_bare_file_name_belongs_to_the_column_of_its_first_file(tmp_path: Path) -> None:
    cells = ["a.png", "s.wav", "s.wav;", '"s.wav ; t.wav "', "; t.wav;", "odd;name.png", "a.png; b.png"]
    table = "file_name,label\n" + "".join(f"{cell},x\n" for cell in cells)
    path = csv_zip(tmp_path, table, {**MEDIA, "odd;name.png": PICTURE})

    with open_dataset(path) as dataset:
        assert dataset.issues == []
        assert [row.values for row in dataset.rows] == [
            {"image": MediaRef("a.png"), "audio": None},
            {"image": None, "audio": MediaRef("s.wav")},
            {"image": None, "audio": MediaRef("s.wav")},
            {"image": None, "audio": refs("s.wav", "t.wav")},
            {"image": None, "audio": MediaRef("t.wav")},
            {"image": MediaRef("odd;name.png"), "audio": None},
            {"image": refs("a.png", "b.png"), "audio": None},
        ]


@pytest.mark.parametrize("cell", ["s.wav;", '"s.wav; t.wav "', " ; s.wav"])
def test_the_kind_of_a_column_is_told_by_the_first_file_of_its_cells(tmp_path: Path, cell: str) -> None:
    with open_dataset(csv_zip(tmp_path, f"file_name,label\n{cell},x\n{cell},y\n", MEDIA)) as dataset:
        assert {name: str(column.type) for name, column in dataset.schema.columns.items()} == {
            "audio": "audio"
        }


def test_a_semicolon_in_jsonl_is_part_of_the_name(tmp_path: Path) -> None:
    assert opened(tmp_path, "a.png;b.png").rows[0].values["image"] == MediaRef("a.png;b.png")


def test_a_folders_file_with_a_semicolon_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("image_file_name,label\nx;y.png,a\n")
    (tmp_path / "x;y.png").write_bytes(PICTURE)

    with open_folder(tmp_path) as dataset:
        assert dataset.rows[0].values["image"] == MediaRef("x;y.png")


def test_lists_of_paths_are_told_without_the_ending_and_lists_of_words_are_not_guessed(
    tmp_path: Path,
) -> None:
    rows = [{"views": ["a.png", "b.png"], "tags": ["x", "y"], "file_names": ["s.wav"], "label": "l"}]

    with open_dataset(zip_of(tmp_path / "d.zip", rows, MEDIA)) as dataset:
        kinds = {name: str(column.type) for name, column in dataset.schema.columns.items()}

        assert kinds == {"views": "image", "audio": "audio"}
        assert told(dataset.issues) == [(None, "tags", "schema_mismatch")]


def test_several_texts_are_read_where_the_schema_says_text(tmp_path: Path) -> None:
    dataset = opened(tmp_path, ["x", "y"], "z", key="notes", columns={"notes": {"type": "text"}})

    assert [row.values["notes"] for row in dataset.rows] == [Several(("x", "y")), "z"]


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ([None, None], "schema_mismatch"),
        (["a.png", None], "schema_mismatch"),
        (["a.png", ""], "schema_mismatch"),
        ([["a.png", "b.png"]], "schema_mismatch"),
        (["a.png", 7], "schema_mismatch"),
        (["a.png", {"path": "b.png"}], "schema_mismatch"),
        (["a.png"] * 65, "too_large"),
    ],
)
def test_what_is_no_plain_list_of_files_is_named(tmp_path: Path, cell: Any, code: str) -> None:
    dataset = opened(tmp_path, cell, "a.png", "b.png", columns={"image": {"type": "image"}})

    assert told(dataset.issues) == [(1, "image", code)]
    assert dataset.rows[0].values["image"] is None


def test_of_films_fewer_are_read_than_of_pictures(tmp_path: Path) -> None:
    dataset = opened(tmp_path, ["f.mp4"] * 9, key="clip_file_names")

    assert told(dataset.issues) == [(1, "clip", "too_large")]
    assert "at most 8" in dataset.issues[0].message


def test_each_bad_file_among_several_is_named_by_line_column_and_name(tmp_path: Path) -> None:
    good = [["a.png", "b.png"], ["b.png", "a.png"], "a.png"]

    report = checked(
        opened(tmp_path, *good, ["a.png", "gone.png", "s.wav", "../up.png", "data:image/png;base64,QQ=="])
    )

    assert told(report.issues) == [
        (4, "image", code)
        for code in ("missing_media", "unreadable_media", "path_escapes_archive", "unreadable_media")
    ]
    assert [issue.value for issue in report.issues][:3] == ["gone.png", "s.wav", "../up.png"]


def test_masking_takes_the_whole_cell_as_missing_if_one_of_its_files_is_broken(tmp_path: Path) -> None:
    rows = [{"image_file_names": ["a.png", "b.png"], "text": f"t{n}", "label": "ab"[n % 2]} for n in range(8)]
    rows[2]["image_file_names"] = ["a.png", "gone.png"]

    report = checked(
        open_dataset(zip_of(tmp_path / "d.zip", rows, MEDIA)), on_bad_row="mask", max_bad_fraction=0.5
    )

    assert report.errors == []
    assert report.bad.masked == {"image": {3}}
    assert not report.bad.skipped


def test_order_and_number_of_files_make_the_content_of_a_row(tmp_path: Path) -> None:
    cells = [["a.png", "b.png"], ["b.png", "a.png"], ["a.png", "a.png"], "a.png", ["a.png", "b.png"]]
    with opened(tmp_path, *cells) as dataset:
        keys = [Example(dataset, row, "x").content_key("image") for row in dataset.rows]

        assert keys[0] == keys[4]
        assert len(set(keys)) == 4
    again = [*cells, ["b.png", "a.png"]]
    with opened(tmp_path, *again) as dataset:
        twice = [i for i in check(dataset, Multimodal()).issues if i.code == Code.DUPLICATE_ROW]
        assert told(twice) == [(5, None, "duplicate_row"), (6, None, "duplicate_row")]


def test_a_preview_shows_the_first_of_several_and_how_many_there_are(tmp_path: Path) -> None:
    with opened(tmp_path, ["a.png", "b.png", "gone.png"], key="image_file_names") as dataset:
        (shown,) = preview(dataset)

    cell = shown["cells"]["image"]
    assert (cell["name"], cell["files"], cell["width"]) == ("a.png", 3, 4)
    assert json.dumps(shown)


def test_a_list_of_embedded_pictures_in_parquet_is_several_files(tmp_path: Path) -> None:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [
        [{"bytes": PICTURE, "path": "1.png"}, {"bytes": OTHER, "path": None}],
        [{"bytes": PICTURE, "path": None}],
        [],
        None,
        [{"bytes": PICTURE, "path": None}, None],
        [{"bytes": None, "path": "beside.png"}, {"bytes": OTHER, "path": None}],
    ]
    columns = {
        "image": pa.array(images, pa.list_(struct)),
        "sounds": pa.array([[SOUND, SOUND]] * 6, pa.list_(pa.binary())),
        "label": pa.array(list("abcabc")),
    }
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    path = tmp_path / "rows.parquet"
    path.write_bytes(buffer.getvalue())

    with open_dataset(path) as dataset:
        values = [row.values["image"] for row in dataset.rows]

        assert {name: str(c.type) for name, c in dataset.schema.columns.items()} == {
            "image": "image",
            "sounds": "audio",
        }
        assert isinstance(values[0], Several)
        assert [dataset.read(part) for part in values[0].parts if isinstance(part, MediaRef)] == [
            PICTURE,
            OTHER,
        ]
        assert isinstance(values[1], MediaRef)
        assert (values[2], values[3], values[4]) == (None, None, None)
        assert isinstance(values[5], Several)
        assert values[5].parts[0] == MediaRef("beside.png")
        assert told(dataset.issues) == [(5, "image", "schema_mismatch")]


def test_a_column_without_several_files_keeps_its_keys(tmp_path: Path) -> None:
    import hashlib

    with opened(tmp_path, "a.png", ["b.png"]) as dataset:
        keys = [Example(dataset, row, "x").content_key("image") for row in dataset.rows]

    assert keys == [hashlib.sha256(PICTURE).hexdigest(), hashlib.sha256(OTHER).hexdigest()]

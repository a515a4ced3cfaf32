"""What a table's columns are taken for, and what its rows become."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from domain.manifest import Schema
from engine.data.manifest import Dataset, MediaRef, Unreadable, open_dataset
from support.datasets import zip_of


def jsonl(folder: Path, rows: Sequence[Any], schema: dict[str, Any] | None = None) -> Dataset:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_dataset(path, schema=Schema.model_validate(schema) if schema else None)


def types(dataset: Dataset) -> dict[str, str]:
    return {name: str(column.type) for name, column in dataset.schema.columns.items()}


def codes(dataset: Dataset) -> list[tuple[int | None, str | None, str]]:
    return [(issue.line, issue.column, str(issue.code)) for issue in dataset.issues]


def test_a_key_with_file_name_names_the_column_and_its_type(tmp_path: Path) -> None:
    row = {"image_file_name": "1.bin", "left_photo_file_name": "2.bin", "clip_file_name": "3.ogg"}

    dataset = jsonl(tmp_path, [row])

    assert types(dataset) == {"image": "image", "left_photo": "image", "clip": "audio"}
    assert dataset.rows[0].values["clip"] == MediaRef("3.ogg")


def test_a_bare_file_name_goes_to_the_column_of_its_type(tmp_path: Path) -> None:
    dataset = jsonl(tmp_path, [{"file_name": "1.png"}, {"file_name": "2.wav"}, {"file_name": "3.JPG"}])

    assert types(dataset) == {"image": "image", "audio": "audio"}
    assert [row.values["image"] for row in dataset.rows] == [MediaRef("1.png"), None, MediaRef("3.JPG")]
    assert dataset.rows[1].values["audio"] == MediaRef("2.wav")


def test_a_bare_file_name_fills_the_schemas_only_column_of_the_type(tmp_path: Path) -> None:
    dataset = jsonl(tmp_path, [{"file_name": "1.png"}], {"columns": {"photo": {"type": "image"}}})

    assert dataset.rows[0].values == {"photo": MediaRef("1.png")}
    assert dataset.issues == []


def test_a_column_under_its_schema_name_needs_no_suffix(tmp_path: Path) -> None:
    schema = {"columns": {"photo": {"type": "image"}, "voice": {"type": "audio", "sampling_rate": 8000}}}

    dataset = jsonl(tmp_path, [{"photo": "1", "voice_file_name": "2"}], schema)

    assert dataset.rows[0].values == {"photo": MediaRef("1"), "voice": MediaRef("2")}
    assert dataset.schema.columns["voice"].sampling_rate == 8000


def test_plain_columns_are_told_by_what_they_hold(tmp_path: Path) -> None:
    rows = [
        {"text": "hello", "photo": "a.png", "price": 3, "open": True, "box": [1, 2]},
        {"text": "see 2.png, or not", "photo": "n/a", "price": 1.5, "open": False, "box": [3, 4]},
    ]

    dataset = jsonl(tmp_path, rows)

    assert types(dataset) == {"text": "text", "photo": "image", "price": "number", "open": "category"}
    assert dataset.rows[0].values == {
        "text": "hello",
        "photo": MediaRef("a.png"),
        "price": 3.0,
        "open": "true",
    }
    assert [(i.column, i.severity) for i in dataset.issues] == [("box", "warning")]


def test_null_absent_and_empty_mean_missing(tmp_path: Path) -> None:
    dataset = jsonl(tmp_path, [{"text": "a", "photo": "1.png"}, {"text": None}, {"text": "", "photo": ""}])

    assert [row.values for row in dataset.rows[1:]] == [{"text": None, "photo": None}] * 2


def test_label_id_and_split_are_no_features(tmp_path: Path) -> None:
    row = {"row_id": 7, "label": "a", "target": "b", "split": "dev", "text": "t"}

    dataset = jsonl(tmp_path, [row])

    assert types(dataset) == {"text": "text"}
    assert (dataset.rows[0].id, dataset.rows[0].label, dataset.rows[0].split) == ("7", "a", "validation")


def test_the_schema_says_which_columns_are_label_id_split_and_group(tmp_path: Path) -> None:
    schema = {"label": "stars", "id": "key", "split": "fold", "group": "who"}
    row = {"stars": 4, "key": "k", "fold": "test", "who": "ann", "label": "text of a label", "split": "torn"}

    dataset = jsonl(tmp_path, [row], schema)

    made = dataset.rows[0]
    assert (made.label, made.id, made.split, made.group) == ("4", "k", "test", "ann")
    assert types(dataset) == {"label": "text", "split": "text"}


@pytest.mark.parametrize(
    ("label", "read"),
    [("cat", "cat"), (3, "3"), (True, "true"), (0.5, 0.5), (None, None), ("", None)],
)
def test_a_label_is_a_class_unless_it_has_a_fraction(tmp_path: Path, label: Any, read: Any) -> None:
    assert jsonl(tmp_path, [{"text": "t", "label": label}]).rows[0].label == read


def test_a_csv_tells_numbers_from_text_and_measures_from_classes(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,price,zip,label\nhello,1.5,01234,0.25\n12,,n/a,1\n")

    dataset = open_dataset(path)

    assert types(dataset) == {"text": "text", "price": "number", "zip": "text"}
    assert [row.values["price"] for row in dataset.rows] == [1.5, None]
    assert [row.label for row in dataset.rows] == [0.25, "1"]


def test_cells_that_do_not_fit_their_column_are_named(tmp_path: Path) -> None:
    columns = {"price": {"type": "number"}, "photo": {"type": "image"}, "kind": {"type": "category"}}
    rows = [
        {"price": "cheap", "photo": 7, "kind": 0.5},
        {"price": True, "photo": [["1.png"]], "kind": {}},
        {"price": 1, "photo": "1.png", "kind": "a"},
    ]

    dataset = jsonl(tmp_path, rows, {"columns": columns})

    assert codes(dataset) == [
        (line, column, "schema_mismatch") for line in (1, 2) for column in ("price", "photo", "kind")
    ]


def test_a_column_given_under_two_keys_is_named(tmp_path: Path) -> None:
    dataset = jsonl(tmp_path, [{"image": "1.png", "image_file_name": "2.png"}, {"image": "3.png"}])

    assert codes(dataset) == [(1, "image", "duplicate_column")]


def test_what_the_schema_names_and_no_row_has_is_named_with_what_there_is(tmp_path: Path) -> None:
    schema = {"columns": {"photo": {"type": "image"}}, "split": "fold", "group": "who"}

    dataset = jsonl(tmp_path, [{"text": "a", "label": "b"}], schema)

    assert [(i.code, i.param) for i in dataset.issues] == [
        ("missing_column", "schema.columns.photo"),
        ("missing_column", "schema.split"),
        ("missing_column", "schema.group"),
    ]
    assert "label, text" in dataset.issues[0].message


def test_an_unknown_split_and_a_repeated_id_are_named(tmp_path: Path) -> None:
    rows = [{"text": "a", "id": 1, "split": "holdout"}, {"text": "b", "id": 1, "split": "Train"}]

    dataset = jsonl(tmp_path, rows)

    assert [(i.line, i.code, i.severity) for i in dataset.issues] == [
        (1, "unknown_split", "error"),
        (2, "duplicate_row", "warning"),
    ]
    assert dataset.rows[1].split == "train"


def test_the_table_may_lie_in_one_folder_of_the_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("data/", "")
        out.writestr("data/metadata.csv", "file_name,label\nimages/1.png,cat\n")
        out.writestr("data/images/1.png", b"bytes")
        out.writestr("__MACOSX/metadata.csv", "")

    with open_dataset(tmp_path / "a.zip") as dataset:
        assert dataset.read(MediaRef("./images/1.png")) == b"bytes"
        assert dataset.issues == []


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([], "empty_file"),
        (["images/1.png"], "unsupported_format"),
        (["a/b/metadata.jsonl"], "unsupported_format"),
        (["metadata.jsonl", "metadata.csv"], "unsupported_format"),
        (["a/metadata.jsonl", "b/metadata.jsonl"], "unsupported_format"),
        (["metadata.jsonl"], "empty_file"),
    ],
)
def test_a_zip_without_one_clear_table_is_named(tmp_path: Path, members: list[str], code: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        for name in members:
            out.writestr(name, b"")

    with open_dataset(tmp_path / "a.zip") as dataset:
        assert [issue.code for issue in dataset.issues] == [code]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.jsonl", b"", "empty_file"),
        ("a.csv", b"\xef\xbb\xbf\r\n", "empty_file"),
        ("a.csv", b"text,label\n", "empty_file"),
        ("a.zip", b"text,label\na,b\n", "unsupported_format"),
        ("a.json", b'[{"text": "a"}]', "unsupported_format"),
        ("a.parquet", b"PAR1\0\0,\0", "unsupported_format"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "unsupported_format"),
    ],
)
def test_a_file_that_is_no_data_set_is_named(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(content)

    dataset = open_dataset(tmp_path / name)

    assert ([issue.code for issue in dataset.issues], list(dataset.rows)) == ([code], [])


@pytest.mark.parametrize("content", ['{"text": "a", "label": "b"}\n', "text,label\na,b\n"])
def test_a_stored_upload_without_a_suffix_is_told_by_its_content(tmp_path: Path, content: str) -> None:
    (tmp_path / "blob").write_text(content)

    dataset = open_dataset(tmp_path / "blob")

    assert (dataset.issues, dataset.rows[0].values) == ([], {"text": "a"})


def test_a_bare_table_has_no_media(tmp_path: Path) -> None:
    dataset = jsonl(tmp_path, [{"photo": "1.png"}])

    with pytest.raises(Unreadable) as refused:
        dataset.read(MediaRef("1.png"))

    assert refused.value.code == "missing_media"


def test_a_folder_is_no_upload(tmp_path: Path) -> None:
    assert codes(open_dataset(tmp_path)) == [(None, None, "unsupported_format")]


def test_a_zip_of_rows_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", ['{"text": "a", "label": "b"}', "{broken"], {})

    with open_dataset(path) as dataset:
        assert codes(dataset) == [(2, None, "invalid_json")]
        assert len(dataset.rows) == 1

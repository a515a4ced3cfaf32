"""Parquet tables: typed cells, media inside of them, and what is wrong with a file or a row."""

import datetime
import decimal
import io
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from domain.manifest import Schema
from domain.specs import Multimodal
from engine.data import formats
from engine.data.check import check
from engine.data.formats import parquet as format_of
from engine.data.manifest import Dataset, open_dataset
from support.datasets import png, shape, tone, wav
from support.parquets import MEDIA, media, parquet

PICTURE = png(np.zeros((4, 4, 3), np.uint8))


def opened(folder: Path, data: bytes, schema: dict[str, Any] | None = None) -> Dataset:
    path = folder / "upload"  # a stored upload has no suffix
    path.write_bytes(data)
    return open_dataset(path, schema=Schema.model_validate(schema) if schema else None)


def types(dataset: Dataset) -> dict[str, str]:
    return {name: str(column.type) for name, column in dataset.schema.columns.items()}


def test_cells_keep_their_types_and_lines_count_rows(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["a", "b", None]).dictionary_encode(),
        "price": [1.5, float("nan"), 2.0],
        "open": [True, None, False],
        "label": [0, 1, 0],
    }

    with opened(tmp_path, parquet(columns)) as dataset:
        assert types(dataset) == {"text": "text", "price": "number", "open": "category"}
        assert [row.line for row in dataset.rows] == [1, 2, 3]
        assert dataset.rows[1].values == {"text": "b", "price": None, "open": None}
        assert [row.label for row in dataset.rows] == ["0", "1", "0"]
        assert dataset.issues == []


def test_days_and_decimals_are_read_as_words_and_numbers(tmp_path: Path) -> None:
    columns = {"day": [datetime.date(2026, 11, 28)], "price": [decimal.Decimal("1.50")]}

    with opened(tmp_path, parquet(columns)) as dataset:
        assert dataset.rows[0].values == {"day": "2026-11-28", "price": 1.5}


def test_an_index_that_pandas_stored_is_no_column(tmp_path: Path) -> None:
    with opened(tmp_path, parquet({"text": ["a"], "__index_level_0__": [7]})) as dataset:
        assert types(dataset) == {"text": "text"}


def test_media_in_cells_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    sound = wav(tone(0, np.random.default_rng(0)))
    columns = {
        "image": media([(PICTURE, "a.png"), None, (PICTURE, None)]),
        "voice": pa.array([sound, sound, None], pa.binary()),
        "label": ["x", "y", "x"],
    }

    with opened(tmp_path, parquet(columns)) as dataset:
        first, second, third = dataset.rows
        assert types(dataset) == {"image": "image", "voice": "audio"}
        assert [second.values["image"], third.values["voice"]] == [None, None]
        assert [dataset.read(row.values[name]) for row, name in ((first, "image"), (third, "image"))] == [
            PICTURE
        ] * 2
        assert dataset.read(second.values["voice"]) == sound
        assert dataset.issues == []


def test_a_path_without_bytes_is_a_file_beside_the_table(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        columns = {
            "image": media([(None, "pictures/1.png"), (PICTURE, "pictures/1.png")]),
            "label": ["a", "b"],
        }
        out.writestr("metadata.parquet", parquet(columns))
        out.writestr("pictures/1.png", b"beside")

    with open_dataset(tmp_path / "a.zip") as dataset:
        assert [dataset.read(row.values["image"]) for row in dataset.rows] == [b"beside", PICTURE]


def test_the_names_of_classes_are_taken_from_where_datasets_writes_them(tmp_path: Path) -> None:
    kind = {"_type": "ClassLabel", "names": ["cat", "dog"]}
    columns = {"text": ["a", "b", "c"], "label": [1, -1, 0], "tags": [[0, 1], [], None]}
    features = {"label": kind, "tags": {"_type": "Sequence", "feature": kind}}

    with opened(tmp_path, parquet(columns, features)) as dataset:
        assert [row.label for row in dataset.rows] == ["dog", None, "cat"]
    with opened(tmp_path, parquet(columns, features), {"label": "tags"}) as dataset:
        assert [row.label for row in dataset.rows] == [("cat", "dog"), (), None]


def test_bytes_of_no_kind_that_is_known_ask_for_a_type(tmp_path: Path) -> None:
    columns = {"blob": pa.array([b"\1\2\3"], pa.binary()), "text": ["a"]}

    with opened(tmp_path, parquet(columns)) as dataset:
        assert [(i.code, i.column, i.severity) for i in dataset.issues] == [
            ("schema_mismatch", "blob", "warning")
        ]
    with opened(tmp_path, parquet(columns), {"columns": {"blob": {"type": "image"}}}) as dataset:
        assert types(dataset)["blob"] == "image"


def test_a_broken_picture_in_a_cell_is_named_by_its_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [(png(shape(n % 2, 16, rng)), f"{n}.png") for n in range(8)]
    pictures[3] = (pictures[3][0][:40], "3.png")
    columns = {"image": media(pictures), "label": ["a", "b"] * 4}

    with opened(tmp_path, parquet(columns)) as dataset:
        report = check(dataset, Multimodal())

    assert [(i.line, i.column, i.code, i.value) for i in report.errors] == [
        (4, "image", "unreadable_media", "3.png")
    ]


def test_a_row_that_is_not_utf_8_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    bad = pa.array([b"good", b"b\xe9d", b"fine"], pa.binary()).view(pa.string())

    with opened(tmp_path, parquet({"text": bad, "label": ["a", "b", "a"]})) as dataset:
        assert [row.line for row in dataset.rows] == [1, 3]
        assert [(i.line, i.column, i.code) for i in dataset.issues] == [(2, "text", "encoding_error")]


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, kept: float) -> None:
    data = parquet({"text": ["a"] * 100})

    with opened(tmp_path, data[: int(len(data) * kept)]) as dataset:
        assert [i.code for i in dataset.issues] == ["unsupported_format"]


def test_damage_in_the_middle_tells_how_far_it_was_read(tmp_path: Path) -> None:
    words = ["".join(random.Random(n).choices("abcdef", k=40)) for n in range(4000)]
    data = bytearray(parquet({"text": words}, row_group_size=2000, compression="zstd"))
    middle = len(data) * 3 // 4
    data[middle : middle + 64] = bytes(64)

    with opened(tmp_path, bytes(data)) as dataset:
        assert [i.code for i in dataset.issues] == ["unsupported_format"]
        assert not dataset.is_whole
        assert f"behind row {len(dataset.rows)} " in dataset.issues[0].message
        assert len(dataset.rows) >= 1024


def test_more_rows_than_are_read_are_refused_before_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format_of, "MAX_ROWS", 3)

    with opened(tmp_path, parquet({"text": ["a"] * 4})) as dataset:
        assert [(i.code, len(dataset.rows)) for i in dataset.issues] == [("too_large", 0)]


def test_a_table_that_unpacks_to_more_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format_of, "MAX_TABLE_BYTES", 100_000)
    data = parquet({"text": ["x" * 1000] * 2000})

    with opened(tmp_path, data) as dataset:
        assert len(data) < 10_000
        assert [i.code for i in dataset.issues] == ["too_large"]


def test_any_damage_ends_in_a_report() -> None:
    kind = {"_type": "ClassLabel", "names": ["a", "b"]}
    columns = {
        "image": media([(PICTURE, "a.png"), None]),
        "text": ["a", "ü"],
        "x": [1.5, None],
        "label": [[0, 1], []],
    }
    whole, dice = parquet(columns, {"label": kind}), random.Random(0)

    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 1, 2, 5))):
            data[dice.randrange(4, len(data))] = dice.randrange(256)
        table = formats.read_table(io.BytesIO(bytes(data)), "parquet")
        if table.embedded:
            table.embedded.close()


def test_moments_that_python_cannot_hold_are_words_all_the_same(tmp_path: Path) -> None:
    columns = {
        "exact": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
        "elsewhere": pa.array([1_700_000_000_000_000], pa.timestamp("us", "Mars/Base")),
        "far": pa.array([300_000_000_000], pa.timestamp("s")),
        "long": pa.array([1], pa.duration("ns")),
    }

    with opened(tmp_path, parquet(columns)) as dataset:
        (row,) = dataset.rows
        assert dataset.issues == []
        assert row.values["exact"] == "2023-11-14 22:13:20.123456789"
        assert row.values["elsewhere"] == "2023-11-14 22:13:20.000000"
        assert set(types(dataset).values()) == {"text"}


def test_what_no_column_is_made_of_is_not_read(tmp_path: Path) -> None:
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    pictures = pa.array([[[{"bytes": PICTURE, "path": "a.png"}]]], pa.list_(pa.list_(MEDIA)))
    columns = {"twice": twice, "pictures": pictures, "far": pa.array([[10**12]], pa.list_(pa.date64()))}

    with opened(tmp_path, parquet({**columns, "text": ["a"]})) as dataset:
        assert types(dataset) == {"text": "text"}
        assert {(i.column, i.severity) for i in dataset.issues} == {(name, "warning") for name in columns}


def test_two_columns_without_a_name_and_odd_metadata_do_no_harm(tmp_path: Path) -> None:
    table = pa.table(
        [pa.array([1]), pa.array([2]), pa.array([PICTURE], pa.binary())], names=["", "", "image"]
    )
    table = table.replace_schema_metadata({"huggingface": '{"info": {"features": {"image": {"_type": []}}}}'})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)

    with opened(tmp_path, buffer.getvalue()) as dataset:
        assert types(dataset) == {"image": "image"}


@pytest.mark.parametrize(
    "labels", [["cat", "dog"], [0.0, 1.0], pa.array(["cat", "dog"]).dictionary_encode(), [0, 1]], ids=str
)
def test_names_of_classes_are_kept_however_the_label_is_stored(tmp_path: Path, labels: Any) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}

    with opened(tmp_path, parquet({"text": ["a", "b"], "label": labels}, features)) as dataset:
        assert [row.label for row in dataset.rows] == ["cat", "dog"]


def test_pictures_that_are_stored_once_for_many_rows_are_pictures(tmp_path: Path) -> None:
    encoded = pa.array([PICTURE, PICTURE, None], pa.binary()).dictionary_encode()

    with opened(tmp_path, parquet({"image": encoded})) as dataset:
        assert types(dataset) == {"image": "image"}
        assert [ref and dataset.read(ref) for ref in (row.values["image"] for row in dataset.rows)] == [
            PICTURE,
            PICTURE,
            None,
        ]


def test_a_small_file_that_unpacks_to_many_pictures_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.archive.RATIO_FLOOR_BYTES", 2**20)
    noise = np.random.default_rng(0).bytes(100_000)

    with opened(
        tmp_path, parquet({"image": pa.array([noise] * 500, pa.binary()).dictionary_encode()})
    ) as data:
        assert [i.code for i in data.issues if i.severity == "error"] == ["too_large"]
        assert len(data.rows) < 500


@pytest.mark.parametrize(
    ("kind", "path"),
    [(pa.struct([("a", pa.int64())]), {"a": 1}), (pa.list_(pa.int64()), [1, 2]), (pa.int64(), 7)],
)
def test_a_file_whose_path_is_no_text_is_named_by_its_row(
    tmp_path: Path, kind: pa.DataType, path: Any
) -> None:
    struct = pa.struct([("bytes", pa.binary()), ("path", kind)])
    good, bad = {"bytes": PICTURE, "path": None}, {"bytes": None, "path": path}
    columns = {
        "images": pa.array([[good, good], [good, bad]], pa.list_(struct)),
        "image": pa.array([good, bad], struct),
        "label": ["a", "b"],
    }

    with opened(tmp_path, parquet(columns)) as dataset:
        assert [row.line for row in dataset.rows] == [1]
        assert [(i.line, str(i.code)) for i in dataset.issues] == [(2, "schema_mismatch")]


def stored_once(value: bytes, *lengths: int) -> pa.Array:
    """Lists of so many files, which are all the same and in the table once."""
    ends = np.cumsum([0, *lengths])
    same = pa.DictionaryArray.from_arrays(
        pa.array([0] * int(ends[-1]), pa.int32()), pa.array([value], pa.binary())
    )
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), same)


def test_of_a_cell_with_too_many_embedded_files_none_is_read(tmp_path: Path) -> None:
    columns = {"image": stored_once(PICTURE, 2, 65, 100_000, 64), "label": list("abab")}

    with opened(tmp_path, parquet(columns)) as dataset:
        assert types(dataset) == {"image": "image"}
        assert [(i.line, i.column, str(i.code)) for i in dataset.issues] == [
            (2, "image", "too_large"),
            (3, "image", "too_large"),
        ]
        assert "holds 100000 files, at most 64 are read" in dataset.issues[1].message
        assert [row.values["image"] is None for row in dataset.rows] == [False, True, True, False]
        assert dataset.embedded is not None
        assert len(dataset.embedded) == 2 + 64


def test_many_files_that_are_stored_once_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.archive.RATIO_FLOOR_BYTES", 2**20)
    value = PICTURE + np.random.default_rng(0).bytes(100_000)
    data = parquet({"image": stored_once(value, *[60] * 16), "label": ["a", "b"] * 8})

    with opened(tmp_path, data) as dataset:
        assert [str(i.code) for i in dataset.issues if i.severity == "error"] == ["too_large"]
        # 200 times the file, and not the 960 of the first rows that are read at once.
        assert dataset.embedded is not None
        assert dataset.embedded.size <= 200 * len(data)
        assert 0 < len(dataset.rows) < 16


def test_a_table_that_breaks_off_in_an_error_of_ours_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.spool.IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("engine.data.manifest.lay_out", lambda *_: 1 / 0)

    # An open file would be a warning, which fails the test.
    with pytest.raises(ZeroDivisionError):
        opened(tmp_path, parquet({"image": media([(PICTURE, None)])}))


#: Reads a table and prints the peak of memory in megabytes.
READ = """
import re, sys
from pathlib import Path
from engine.data.formats.parquet import read_parquet
with open(sys.argv[1], "rb") as file:
    print([issue.code for issue in read_parquet(file).issues])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("of", ["bytes", "structs"])
def test_files_that_the_table_alone_knows_to_be_the_same_do_not_fill_the_memory(
    tmp_path: Path, of: str
) -> None:
    # Written without Arrow's own schema: that a value is stored once stands in the pages only.
    same = np.random.default_rng(0).bytes(2**18)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cell = [same if of == "bytes" else {"bytes": same, "path": None}] * 64
    files = pa.array([cell] * 64, pa.list_(pa.binary() if of == "bytes" else struct))
    pa.parquet.write_table(pa.table({"image": files}), tmp_path / "table.parquet", store_schema=False)
    del files

    given = [sys.executable, "-c", READ, str(tmp_path / "table.parquet")]
    told = {**os.environ, "PYTHONPATH": os.getcwd()}
    codes, peak = subprocess.run(given, env=told, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[:2]

    assert codes == "['too_large']"
    # Sixteen rows, unpacked, are 256 MB.
    assert int(peak) < 250_000

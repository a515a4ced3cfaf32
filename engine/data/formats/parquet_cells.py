"""Parquet's columns as cells. Media lie inside of them as Hugging Face's `datasets` stores them.

A picture or sound is a struct of `bytes` and `path`, or plain bytes; a class is a number whose names stand in
the file's metadata: https://huggingface.co/docs/datasets/about_dataset_features.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.types as kinds

from domain.manifest import ColumnType
from engine.data.archive import MAX_MEMBER_BYTES
from engine.data.infer import media_type
from engine.data.raw_rows import Embedded, TooMany
from engine.data.several import MOST_FILES
from engine.data.sniff import media_kind
from engine.data.tables import MAX_LINE_BYTES

#: What pandas calls an index that it stores as a column.
_INDEX = re.compile(r"__index_level_\d+__")
_MEDIA = {"Image": ColumnType.IMAGE, "Audio": ColumnType.AUDIO, "Video": ColumnType.VIDEO}

#: In the place of a value that Python cannot hold, or should not.
UNREAD = object()

Reader = Callable[[pa.Array], Iterable[Any]]
#: Keeps a file's bytes and tells their place; it may refuse them by an exception, which ends the reading.
Add = Callable[[bytes], int]


def holds_files(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    if _is_list(kind):
        kind = _plain(kind.value_type)
    return _is_bytes(kind) or (kinds.is_struct(kind) and _has_bytes(kind))


def readers(schema: pa.Schema, add: Add) -> Iterator[tuple[str | None, Reader]]:
    """Of each column its name (None: it is no column of the data) and what makes its cells; files go to `add`.

    Cells of files are made one by one as they are asked for: a few bytes may stand for all of them.
    """
    features = _features(schema.metadata or {})
    for field in schema:
        is_index = _INDEX.fullmatch(field.name)
        yield None if is_index else field.name, _reader(field.type, features.get(field.name), add)


def _plain(kind: pa.DataType) -> pa.DataType:
    """What a dictionary-encoded column holds."""
    return kind.value_type if kinds.is_dictionary(kind) else kind


def _reader(kind: pa.DataType, feature: Any, add: Add) -> Reader:
    if holds_files(kind):
        known = _known(feature)
        return lambda column: (_cell(cell, known, add) for cell in column)
    if kinds.is_dictionary(kind):
        inner = _reader(kind.value_type, feature, add)
        return lambda column: inner(column.dictionary_decode())
    if names := _class_names(feature):
        return lambda column: [_named(cell, names) for cell in _values(column)]
    if kinds.is_floating(kind):
        # pandas writes a missing number as NaN.
        return lambda column: [None if cell != cell else cell for cell in _values(column)]
    if kinds.is_decimal(kind):
        return lambda column: [None if cell is None else float(cell) for cell in _values(column)]
    if kinds.is_temporal(kind):
        return _times
    # Of what is nested only plain lists can be labels; the rest is no column, and is not even read.
    if kinds.is_nested(kind) and not _is_plain_list(kind):
        return lambda column: [{} if there else None for there in column.is_valid().to_pylist()]
    return _values


def _is_plain_list(kind: pa.DataType) -> bool:
    if not _is_list(kind):
        return False
    inner = _plain(kind.value_type)
    return not (kinds.is_nested(inner) or _is_bytes(inner))


def _is_list(kind: pa.DataType) -> bool:
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def _known(feature: Any) -> ColumnType | None:
    """What `datasets` says that the column holds: files, or lists of files."""
    if isinstance(feature, list):
        feature = feature[0] if len(feature) == 1 else None
    if isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList"):
        feature = feature.get("feature")
    told = feature.get("_type") if isinstance(feature, dict) else None
    return _MEDIA.get(told) if isinstance(told, str) else None


def _cell(cell: pa.Scalar, known: ColumnType | None, add: Add) -> Any:
    """One file, or a list of files, made one by one: many that are stored once are one in memory at a time."""
    cell = _decoded(cell)
    if not _is_list(cell.type):
        return _file(cell, known, add)
    parts = cell.values if cell.is_valid else None
    if parts is None:
        return None
    if len(parts) > MOST_FILES:
        data, path = _content(_decoded(parts[0]))
        return TooMany(len(parts), _kind(data, path, known))
    files = []
    for part in parts:
        files.append(_file(_decoded(part), known, add))
        if files[-1] is UNREAD:
            return UNREAD
    return files


def _decoded(cell: pa.Scalar) -> pa.Scalar:
    """What a dictionary-encoded cell stands for."""
    return cell.value if cell.is_valid and kinds.is_dictionary(cell.type) else cell


def _file(cell: pa.Scalar, known: ColumnType | None, add: Add) -> Any:
    """What has bytes is embedded; what has a path alone lies beside the table."""
    data, path = _content(cell)
    if data is UNREAD or path is UNREAD:
        return UNREAD
    if data is None:
        return path if path is None or isinstance(path, str) else UNREAD
    name = path if isinstance(path, str) else None
    return Embedded(add(data), len(data), _kind(data, path, known), name)


def _kind(data: Any, path: Any, known: ColumnType | None) -> ColumnType | None:
    by_name = media_type(path) if isinstance(path, str) else None
    return known or by_name or (media_kind(data) if isinstance(data, bytes) else None)


def _content(cell: pa.Scalar) -> tuple[Any, Any]:
    """A file's bytes and its path: each may be None, or UNREAD. What else a struct holds is not looked at."""
    if not cell.is_valid:
        return None, None
    if not kinds.is_struct(cell.type):
        return _bytes(cell), None
    has_path = cell.type.get_field_index("path") >= 0
    data, path = _bytes(_decoded(cell["bytes"])), _path(_decoded(cell["path"])) if has_path else None
    return data, path


def _bytes(cell: pa.Scalar) -> Any:
    if not cell.is_valid:
        return None
    return UNREAD if cell.as_buffer().size > MAX_MEMBER_BYTES else cell.as_py()


def _path(cell: pa.Scalar) -> Any:
    """What is no text stays as it is: beside bytes nobody asks for it."""
    if not cell.is_valid:
        return None
    if not (
        kinds.is_string(cell.type) or kinds.is_large_string(cell.type) or kinds.is_string_view(cell.type)
    ):
        return cell
    if cell.as_buffer().size > MAX_LINE_BYTES:
        return UNREAD
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return UNREAD


def _times(column: pa.Array) -> list[Any]:
    """As Arrow writes them: Python knows no nanoseconds and no years beyond 9999."""
    kind = column.type
    if kinds.is_timestamp(kind):
        # A time zone that this machine does not know is no reason to refuse the moment.
        column = column.cast(pa.timestamp(kind.unit))
    if kinds.is_duration(kind):
        column = column.cast(pa.int64())
    return column.cast(pa.string()).to_pylist()


def _values(column: pa.Array) -> list[Any]:
    try:
        found = column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        found = [_value(scalar) for scalar in column]
    return [UNREAD if isinstance(cell, str) and len(cell) > MAX_LINE_BYTES else cell for cell in found]


def _value(scalar: pa.Scalar) -> Any:
    """What is not UTF-8 becomes half a character, so that its row is named for it."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return UNREAD if kinds.is_nested(scalar.type) else "\udcff"
    except (ValueError, OverflowError, pa.ArrowException):
        return UNREAD


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        kinds.is_binary(kind)
        or kinds.is_large_binary(kind)
        or kinds.is_fixed_size_binary(kind)
        or kinds.is_binary_view(kind)
    )


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether a struct has one field `bytes` that holds some, and no field twice."""
    names = [kind.field(n).name for n in range(kind.num_fields)]
    place = kind.get_field_index("bytes")
    return len(set(names)) == len(names) and place >= 0 and _is_bytes(_plain(kind.field(place).type))


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """What `datasets` says of the columns; nothing where it is absent or broken."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(feature: Any) -> list[str]:
    """Of a class, or of a list of classes."""
    while isinstance(feature, list | dict):
        if isinstance(feature, list):
            feature = feature[0] if len(feature) == 1 else None
        elif feature.get("_type") == "ClassLabel":
            names = feature.get("names")
            return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else []
        else:
            feature = feature.get("feature")
    return []


def _named(cell: Any, names: list[str]) -> Any:
    """-1 stands for a class that is not known; words, and what is out of range, stay as they are, to be seen."""
    if isinstance(cell, list):
        return [_named(part, names) for part in cell]
    if cell is None or cell != cell or cell == -1:
        return None
    if not isinstance(cell, int | float) or cell != int(cell) or not 0 <= cell < len(names):
        return cell
    return names[int(cell)]

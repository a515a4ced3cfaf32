"""Parquet's columns as cells. Media lie inside of them as Hugging Face's `datasets` stores them.

A picture or sound is a struct of `bytes` and `path`, or plain bytes; a class is a number whose names stand in
the file's metadata: https://huggingface.co/docs/datasets/about_dataset_features.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.types as kinds

from domain.manifest import ColumnType
from engine.data.infer import media_type
from engine.data.raw_rows import Embedded
from engine.data.sniff import media_kind
from engine.data.spool import Spool

#: What pandas calls an index that it stores as a column.
_INDEX = re.compile(r"__index_level_\d+__")
_MEDIA = {"Image": ColumnType.IMAGE, "Audio": ColumnType.AUDIO, "Video": ColumnType.VIDEO}

Reader = Callable[[pa.Array], list[Any]]


def holds_files(kind: pa.DataType) -> bool:
    return _is_bytes(kind) or (kinds.is_struct(kind) and _part(kind, "bytes") is not None)


def readers(schema: pa.Schema, files: Spool) -> dict[str, Reader]:
    """By column, what makes its cells; files in them go to `files`."""
    features = _features(schema.metadata or {})
    return {
        field.name: _reader(field.type, features.get(field.name), files)
        for field in schema
        if not _INDEX.fullmatch(field.name)
    }


def _reader(kind: pa.DataType, feature: Any, files: Spool) -> Reader:
    if holds_files(kind):
        known = _MEDIA.get(feature.get("_type", "")) if isinstance(feature, dict) else None
        return lambda column: _files(column, known, files)
    if names := _class_names(feature):
        return lambda column: [_named(cell, names) for cell in _values(column)]
    if kinds.is_floating(kind):
        # pandas writes a missing number as NaN.
        return lambda column: [None if cell != cell else cell for cell in _values(column)]
    if kinds.is_decimal(kind):
        return lambda column: [None if cell is None else float(cell) for cell in _values(column)]
    if kinds.is_temporal(kind):
        return lambda column: [None if cell is None else str(cell) for cell in _values(column)]
    return _values


def _files(column: pa.Array, known: ColumnType | None, files: Spool) -> list[Any]:
    """What has bytes is embedded; what has a path alone lies beside the table."""
    return [_file(cell, known, files) for cell in _values(column)]


def _file(cell: Any, known: ColumnType | None, files: Spool) -> Any:
    if isinstance(cell, str):
        return cell
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if data is None:
        return path
    name = path if isinstance(path, str) else None
    kind = known or (media_type(name) if name else None) or media_kind(data)
    return Embedded(files.add(data), len(data), kind, name)


def _values(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    """What is not UTF-8 becomes half a character, so that its row is named for it."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return "\udcff"


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        kinds.is_binary(kind)
        or kinds.is_large_binary(kind)
        or kinds.is_fixed_size_binary(kind)
        or kinds.is_binary_view(kind)
    )


def _part(kind: pa.DataType, name: str) -> pa.Field | None:
    """The struct's field, if it is there once and holds bytes."""
    place = kind.get_field_index(name)
    return kind.field(place) if place >= 0 and _is_bytes(kind.field(place).type) else None


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
    """-1 stands for a class that is not known; what is out of range stays a number, to be seen."""
    if isinstance(cell, list):
        return [_named(part, names) for part in cell]
    if not isinstance(cell, int) or cell == -1:
        return None
    return names[cell] if 0 <= cell < len(names) else cell

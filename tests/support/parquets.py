"""Parquet files as pandas and Hugging Face's `datasets` write them."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet

#: How `datasets` stores a picture or a sound.
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def parquet(columns: Mapping[str, Any], features: Mapping[str, Any] | None = None, **options: Any) -> bytes:
    """A file of `columns`, each a sequence or an array; `features` as `datasets` notes them."""
    table = pa.table(
        {name: values if isinstance(values, pa.Array) else list(values) for name, values in columns.items()}
    )
    if features:
        noted = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": noted})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, **options)
    return buffer.getvalue()


def media(files: Sequence[tuple[bytes | None, str | None] | None]) -> pa.Array:
    """A column of pictures or sounds: bytes, path, or both of each."""
    return pa.array([f and {"bytes": f[0], "path": f[1]} for f in files], MEDIA)

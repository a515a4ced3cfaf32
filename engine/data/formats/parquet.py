"""Parquet: typed columns, some rows at a time. What the cells become is `parquet_cells`' business."""

import os
from collections.abc import Iterator, Sequence
from itertools import count
from typing import IO, Any

from domain.manifest import Code, Issue
from engine.data.archive import is_bomb
from engine.data.raw_rows import RawRow
from engine.data.spool import Spool
from engine.data.tables import MAX_TABLE_BYTES, BadLine, Table, excerpt, refuse_characters, repeated_names

#: Rows turned into Python values at once: few where each may hold a film.
_AT_ONCE, _MEDIA_AT_ONCE = 128, 16
#: A few bytes of metadata can claim any number of equal rows.
MAX_ROWS = 50_000_000
#: Read in pieces of this size, instead of a whole row group, which pandas writes as large as the file.
_BUFFER_BYTES = 2**20
#: Bytes that are in a row group once, for however many rows, are read so: they may stand for gigabytes, which Arrow would
#: else unpack before anybody can refuse them. It copies them for each batch: groups for which that comes to more than
#: this are read without.
_DICTIONARY_BYTES = 2**32
#: Media hardly shrink in a table; what a group's bytes come to is at most so many times the file.
_DENSEST = 4


def read_parquet(file: IO[bytes]) -> Table:
    """Lines are rows, counted from 1. Close the table."""
    # Both take more than a second to load, which no other format need wait for.
    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = Table(is_whole=False)
    try:
        source = parquet.ParquetFile(file)
        names, rows = source.schema_arrow.names, source.metadata.num_rows
    except UnicodeDecodeError:
        message = "A column's name is not UTF-8; rename it."
        table.issues.append(Issue(Code.ENCODING_ERROR, message))
        return table
    except (pa.ArrowException, OSError) as error:
        message = f"The Parquet file is damaged, cut off or encrypted ({_short(error)}); write it anew."
        table.issues.append(Issue(Code.UNSUPPORTED_FORMAT, message))
        return table
    table.issues += repeated_names(names, None)
    if rows > MAX_ROWS:
        message = f"The file has {rows} rows, at most {MAX_ROWS} are read; split it."
        table.issues.append(Issue(Code.TOO_LARGE, message))
    if not table.issues:
        table.is_whole = True
        _fill(table, source, file)
    return table


class _TooLarge(Exception):
    """The table, or the files in it, are more than is read."""


def _fill(table: Table, source: Any, file: IO[bytes]) -> None:
    from engine.data.formats.parquet_cells import holds_files, readers

    size = file.seek(0, os.SEEK_END)
    table.embedded = files = Spool()

    def add(piece: bytes) -> int:
        if is_bomb(files.size + len(piece), size):
            raise _TooLarge
        return files.add(piece)

    schema = source.schema_arrow
    names, readings = zip(*readers(schema, add), strict=True) if len(schema) else ((), ())
    has_files = any(holds_files(field.type) for field in schema)
    try:
        # Row by row: the next is not even made if this one is too much.
        batches = _batches(file, source.metadata, table, _MEDIA_AT_ONCE if has_files else _AT_ONCE)
        for line, cells in _cells(batches, readings):
            _add_row(table, line, names, cells)
            if table.rows.size > MAX_TABLE_BYTES:
                raise _TooLarge
    except _TooLarge:
        _stop(table, "unpacks to more than it should; split it, or write the media as files beside it")
    files.seal()


def _cells(batches: Iterator[Any], readings: Sequence[Any]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Of each row its number and its cells."""
    lines = count(1)
    for batch in batches:
        columns = [read(column) for read, column in zip(readings, batch.columns, strict=True)]
        for cells in zip(*columns, strict=True):
            yield next(lines), cells


def _add_row(table: Table, line: int, names: Sequence[str | None], cells: tuple[Any, ...]) -> None:
    from engine.data.formats.parquet_cells import UNREAD

    row = {name: cell for name, cell in zip(names, cells, strict=True) if name is not None}
    try:
        if UNREAD in cells:
            name = excerpt(names[cells.index(UNREAD)])
            message = f"The value of '{name}' is too large, or none that can be read; correct it."
            raise BadLine(Code.SCHEMA_MISMATCH, message, name)
        refuse_characters(row)
        table.rows.append(RawRow(line, row))
    except BadLine as bad:
        table.issues.append(Issue(bad.code, bad.message, line, bad.column))


def _batches(file: IO[bytes], metadata: Any, table: Table, at_once: int) -> Iterator[Any]:
    """The rows, `at_once` at a time; what ends them early is noted in `table`."""
    import pyarrow as pa

    rows = 0
    try:
        for batch in _groups(file, metadata, at_once):
            rows += batch.num_rows
            yield batch
    except (pa.ArrowException, OSError) as error:
        message = f"The file is damaged behind row {rows} ({_short(error)}); write it anew."
        table.issues.append(Issue(Code.UNSUPPORTED_FORMAT, message))
        table.is_whole = False


def _groups(file: IO[bytes], metadata: Any, at_once: int) -> Iterator[Any]:
    import pyarrow.parquet as parquet

    size, files = file.seek(0, os.SEEK_END), _bytes(metadata.schema)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        # What a group says of its size counts as far as a file of this one can have it.
        copied = min(group.total_byte_size, _DENSEST * size) * -(-group.num_rows // at_once)
        source = parquet.ParquetFile(
            file,
            metadata=metadata,
            read_dictionary=files if copied <= _DICTIONARY_BYTES else [],
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES,
        )
        yield from source.iter_batches(batch_size=at_once, row_groups=[number])


def _bytes(schema: Any) -> list[str]:
    """The paths of the leaves that hold plain bytes.

    Nothing is asked of a column in a row group here: where that is damaged, Arrow ends the whole process.
    """
    leaves = (schema.column(n) for n in range(len(schema)))
    return [x.path for x in leaves if x.physical_type == "BYTE_ARRAY" and x.logical_type.type == "NONE"]


def _stop(table: Table, why: str) -> None:
    message = f"The table {why}; at most {MAX_TABLE_BYTES} bytes are read besides its media."
    table.issues.append(Issue(Code.TOO_LARGE, message))
    table.is_whole = False


def _short(error: Exception) -> str:
    return excerpt(str(error).strip().partition("\n")[0]) or type(error).__name__

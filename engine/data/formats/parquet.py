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


def read_parquet(file: IO[bytes]) -> Table:
    """Lines are rows, counted from 1. Close the table."""
    # Both take more than a second to load, which no other format need wait for.
    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = Table(is_whole=False)
    try:
        source = parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
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
        _fill(table, source, file.seek(0, os.SEEK_END))
    return table


class _TooLarge(Exception):
    """The table, or the files in it, are more than is read."""


def _fill(table: Table, source: Any, size: int) -> None:
    from engine.data.formats.parquet_cells import holds_files, readers

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
        for line, cells in _cells(
            _batches(source, table, _MEDIA_AT_ONCE if has_files else _AT_ONCE), readings
        ):
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


def _batches(source: Any, table: Table, at_once: int) -> Iterator[Any]:
    """The rows, `at_once` at a time; what ends them early is noted in `table`."""
    import pyarrow as pa

    batches, rows = source.iter_batches(batch_size=at_once), 0
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            message = f"The file is damaged behind row {rows} ({_short(error)}); write it anew."
            table.issues.append(Issue(Code.UNSUPPORTED_FORMAT, message))
            table.is_whole = False
            return
        rows += batch.num_rows
        yield batch


def _stop(table: Table, why: str) -> None:
    message = f"The table {why}; at most {MAX_TABLE_BYTES} bytes are read besides its media."
    table.issues.append(Issue(Code.TOO_LARGE, message))
    table.is_whole = False


def _short(error: Exception) -> str:
    return excerpt(str(error).strip().partition("\n")[0]) or type(error).__name__

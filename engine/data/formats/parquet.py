"""Parquet: typed columns, some rows at a time. What the cells become is `parquet_cells`' business."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from domain.manifest import Code, Issue
from engine.data.raw_rows import RawRow
from engine.data.spool import Spool
from engine.data.tables import MAX_TABLE_BYTES, BadLine, Table, refuse_characters, repeated_names

#: Rows turned into Python values at once: few where each may hold a film.
_AT_ONCE, _MEDIA_AT_ONCE = 1024, 16
#: A few bytes of metadata can claim any number of equal rows.
MAX_ROWS = 50_000_000


def read_parquet(file: BinaryIO) -> Table:
    """Lines are rows, counted from 1. Close the table's `embedded`."""
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
        _fill(table, source)
    return table


def _fill(table: Table, source: Any) -> None:
    from engine.data.formats.parquet_cells import holds_files, readers

    table.embedded = files = Spool()
    readings = readers(source.schema_arrow, files)
    has_files = any(holds_files(field.type) for field in source.schema_arrow)
    line = 0
    for batch in _batches(table, source, _MEDIA_AT_ONCE if has_files else _AT_ONCE):
        columns = [read(batch.column(name)) for name, read in readings.items()]
        for cells in zip(*columns, strict=True):
            line += 1
            row = dict(zip(readings, cells, strict=True))
            try:
                refuse_characters(row)
                table.rows.append(RawRow(line, row))
            except BadLine as bad:
                table.issues.append(Issue(bad.code, bad.message, line, bad.column))
    files.seal()


def _batches(table: Table, source: Any, at_once: int) -> Iterator[Any]:
    """The rows, `at_once` at a time; what ends them early is noted in `table`."""
    import pyarrow as pa

    from engine.data.formats.parquet_cells import holds_files

    batches, rows, size = source.iter_batches(batch_size=at_once), 0, 0
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            message = f"The file is damaged behind row {rows} ({_short(error)}); write it anew."
            table.issues.append(Issue(Code.UNSUPPORTED_FORMAT, message))
            break
        rows += batch.num_rows
        size += sum(column.nbytes for column in batch.columns if not holds_files(column.type))
        if size > MAX_TABLE_BYTES:
            message = f"A table may have {MAX_TABLE_BYTES} bytes besides its media; split it into several."
            table.issues.append(Issue(Code.TOO_LARGE, message))
            break
        yield batch
    table.is_whole = False


def _short(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__

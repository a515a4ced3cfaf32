"""The formats of tables, each a reader that never raises for what a user wrote."""

from typing import IO

from domain.manifest import Code, Issue
from engine.data.formats.comma_separated import read_csv
from engine.data.formats.jsonl import read_jsonl
from engine.data.formats.parquet import read_parquet
from engine.data.issues import Issues
from engine.data.tables import Table

_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_TEXTS = {"jsonl": read_jsonl, "csv": read_csv}

#: What a table's name may end with.
KINDS = ("jsonl", "csv", "parquet")


def read_table(file: IO[bytes], kind: str) -> Table:
    """The rows of a table of one of `KINDS`; `file` can be sought in."""
    table = read_parquet(file) if kind == "parquet" else _read_text(file, kind)
    table.rows.seal()
    return table


def _read_text(file: IO[bytes], kind: str) -> Table:
    start = file.read(len(_BOM))
    if start.startswith(_UTF_16):
        message = "The table is UTF-16; save it as UTF-8."
        return Table(issues=Issues([Issue(Code.ENCODING_ERROR, message)]))
    file.seek(len(_BOM) if start == _BOM else 0)
    return _TEXTS[kind](file)

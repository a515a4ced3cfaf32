"""Tells what an upload is by how it begins and what it is named, and which of its files is the table."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from domain.manifest import Code
from engine.data.archive import Unreadable
from engine.data.formats import KINDS
from engine.data.formats.class_folders import is_litter
from engine.data.tables import excerpt

HEAD_BYTES = 4096
_TABLES = tuple(f"metadata.{kind}" for kind in KINDS)
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_PARQUET_START = b"PAR1"


def kind_of(head: bytes, filename: str) -> str:
    """`zip` or one of `formats.KINDS`. A stored upload has no suffix, so content comes first.

    An object is JSONL, other text CSV. Raises Unreadable for what is neither.
    """
    if not head.strip(b"\xef\xbb\xbf\r\n\t "):
        raise Unreadable(Code.EMPTY_FILE, "The file is empty; write one line a sample.")
    if head.startswith(_ZIP_STARTS):
        return "zip"
    if head.startswith(_PARQUET_START):
        return "parquet"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"{") or filename.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    for ending in (".zip", ".parquet"):
        if filename.endswith(ending):
            message = f"This is not a {ending[1:]} file, although it is named so; write and upload it again."
            raise Unreadable(Code.UNSUPPORTED_FORMAT, message)
    if start.startswith(b"["):
        message = "This looks like one JSON list; write JSONL, one object a line."
        raise Unreadable(Code.UNSUPPORTED_FORMAT, message)
    # Every binary format has a NUL early on; text has none.
    is_wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if (b"\0" in head or b"," not in head) and not (is_wide or filename.endswith(".csv")):
        message = "Upload a .jsonl, .csv or .parquet table, or a zip of a table named metadata and its media."
        raise Unreadable(Code.UNSUPPORTED_FORMAT, message)
    return "csv"


def table_name(names: Sequence[str]) -> str | None:
    """The table at the root, or in the one folder that everything lies in; None if there is none.

    Raises Unreadable if there are several.
    """
    found = [n for n in names if PurePosixPath(n).name in _TABLES and not n.startswith("__MACOSX/")]
    for depth in (0, 1):
        here = [name for name in found if name.count("/") == depth]
        if len(here) > 1:
            message = f"There are {len(here)} tables ({', '.join(here[:5])}); keep one."
            raise Unreadable(Code.UNSUPPORTED_FORMAT, message)
        if here:
            return here[0]
    return None


def no_table(names: Sequence[str]) -> Unreadable:
    """What to do about a zip or folder that is no data set."""
    if not names:
        return Unreadable(
            Code.EMPTY_FILE,
            "It holds no files; put in metadata.jsonl, with one line a sample, and its media.",
        )
    deeper = [name for name in names if PurePosixPath(name).name in _TABLES and not is_litter(name)]
    if deeper:
        message = f"The table '{excerpt(deeper[0])}' lies too deep; move it and its media to the top."
        return Unreadable(Code.UNSUPPORTED_FORMAT, message)
    message = (
        "There is no metadata.jsonl, metadata.csv or metadata.parquet at the top, and no two folders of media "
        "that could be classes; add a table with one line a sample."
    )
    return Unreadable(Code.UNSUPPORTED_FORMAT, message)

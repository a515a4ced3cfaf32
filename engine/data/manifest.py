"""An uploaded file as a data set: a zip with its table, or a bare table. Knows no encoder and no training.

A folder on this machine is read the same way, for whoever checks data before packing it.
"""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType

from domain.manifest import Code, Issue, Schema, errors_in
from engine.data.archive import Archive, Unreadable
from engine.data.folder import Folder
from engine.data.infer import lay_out
from engine.data.references import explained, inline_bytes, is_data_url, refuse_address
from engine.data.rows import MediaRef, Row, Value, class_name, make_rows
from engine.data.tables import read_table

__all__ = ["Dataset", "MediaRef", "Row", "Unreadable", "Value", "class_name", "open_dataset", "open_folder"]

#: Rows are held in memory, and a table of this size has millions of them.
MAX_TABLE_BYTES = 512 * 2**20

_TABLES = ("metadata.jsonl", "metadata.csv")
_HEAD_BYTES = 4096
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


@dataclass
class Dataset:
    """An open data set; close it, or use it as a context manager."""

    #: With nothing left open: what was not declared is inferred.
    schema: Schema
    rows: list[Row] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    archive: Archive | Folder | None = field(default=None, repr=False)
    #: The folder inside the zip that holds the table.
    prefix: str = ""
    #: False where lines were lost that nobody can count, so that no row may be left out for being bad.
    is_whole: bool = True
    #: False for CSV, whose cells are all words.
    typed: bool = True

    def read(self, ref: MediaRef) -> bytes:
        """A media file's bytes; raises Unreadable. Any thread may read."""
        if is_data_url(ref.name):
            return inline_bytes(ref.name)
        refuse_address(ref.name)
        try:
            return self._file(ref.name)
        except Unreadable as error:
            raise explained(ref.name, error) from error

    def _file(self, name: str) -> bytes:
        if self.archive is None:
            message = "a bare table brings no files; upload a zip of the table with its media"
            raise Unreadable(Code.MISSING_MEDIA, message)
        return self.archive.read(name, folder=self.prefix)

    def close(self) -> None:
        if self.archive is not None:
            self.archive.close()

    def __enter__(self) -> "Dataset":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_dataset(path: Path, *, schema: Schema | None = None, filename: str | None = None) -> Dataset:
    """Reads the table of a zip, JSONL or CSV file, told apart by content, then by `filename`.

    Whatever a user sent, nothing is raised: what is wrong with it is in `issues`.
    """
    dataset = Dataset(schema or Schema())
    try:
        data, kind = _table_of(dataset, path, (filename or path.name).lower())
    except Unreadable as error:
        dataset.issues.append(Issue(error.code, error.message))
        return dataset
    return _filled(dataset, data, kind)


def open_folder(path: Path, *, schema: Schema | None = None) -> Dataset:
    """The data set in a folder with metadata.jsonl or metadata.csv, read in place; nothing is raised either."""
    dataset = Dataset(schema or Schema(), archive=(folder := Folder(path)))
    names = [name for name in _TABLES if (path / name).exists()]
    try:
        if len(names) != 1:
            found = "both metadata.jsonl and metadata.csv" if names else "no metadata.jsonl or metadata.csv"
            message = f"The folder has {found}; one of them is needed, with one line a sample."
            raise Unreadable(Code.UNSUPPORTED_FORMAT, message)
        data = folder.read(names[0])
    except Unreadable as error:
        dataset.issues.append(Issue(error.code, error.message))
        return dataset
    return _filled(dataset, data, PurePosixPath(names[0]).suffix[1:])


def _filled(dataset: Dataset, data: bytes, kind: str) -> Dataset:
    table = read_table(data, kind)
    dataset.typed = table.typed
    layout, of_columns = lay_out(table, dataset.schema)
    dataset.schema, dataset.is_whole = layout.schema, table.is_whole
    dataset.rows, of_rows = make_rows(table, layout)
    dataset.issues += [*table.issues, *of_columns, *of_rows]
    if not dataset.rows and not errors_in(dataset.issues):
        dataset.issues.append(Issue(Code.EMPTY_FILE, "The table has no rows; write one line a sample."))
    return dataset


def _table_of(dataset: Dataset, path: Path, filename: str) -> tuple[bytes, str]:
    if not path.is_file():
        raise Unreadable(Code.UNSUPPORTED_FORMAT, "This is not a file; send a folder as a zip.")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.strip(b"\xef\xbb\xbf\r\n\t "):
        raise Unreadable(Code.EMPTY_FILE, "The file is empty; write one line a sample.")
    if head.startswith(_ZIP_STARTS):
        return _table_in_zip(dataset, path)
    kind = _kind(head, filename)
    if path.stat().st_size > MAX_TABLE_BYTES:
        message = f"A table may have {MAX_TABLE_BYTES} bytes; split it into training and validation files."
        raise Unreadable(Code.TOO_LARGE, message)
    return path.read_bytes(), kind


def _kind(head: bytes, filename: str) -> str:
    """A stored upload has no suffix, so content comes first: an object is JSONL, other text CSV."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if start.startswith(b"{") or filename.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if filename.endswith(".zip"):
        message = "This is not a zip, although it is named so; pack and upload it again."
        raise Unreadable(Code.UNSUPPORTED_FORMAT, message)
    if start.startswith(b"["):
        message = "This looks like one JSON list; write JSONL, one object a line."
        raise Unreadable(Code.UNSUPPORTED_FORMAT, message)
    # Every binary format has a NUL early on; text has none.
    if (b"\0" in head or b"," not in head) and not (is_wide or filename.endswith(".csv")):
        message = "Upload a zip with metadata.jsonl or metadata.csv and its media, a .jsonl or a .csv file."
        raise Unreadable(Code.UNSUPPORTED_FORMAT, message)
    return "csv"


def _table_in_zip(dataset: Dataset, path: Path) -> tuple[bytes, str]:
    dataset.archive = archive = Archive(path)
    if archive.bomb:
        raise Unreadable(Code.ZIP_BOMB, archive.bomb)
    dataset.issues += archive.issues
    name = _table_name(archive.names)
    dataset.prefix = name.removesuffix(PurePosixPath(name).name)
    try:
        data = archive.read(name)
    except Unreadable as error:
        code = Code.UNSUPPORTED_FORMAT if error.code == Code.UNREADABLE_MEDIA else error.code
        raise Unreadable(code, f"'{name}': {error.message}.") from error
    return data, PurePosixPath(name).suffix[1:]


def _table_name(names: list[str]) -> str:
    """The table at the zip's root, or in the one folder that everything lies in."""
    if not names:
        raise Unreadable(Code.EMPTY_FILE, "The zip holds no files.")
    found = [n for n in names if PurePosixPath(n).name in _TABLES and not n.startswith("__MACOSX/")]
    for depth in (0, 1):
        here = [name for name in found if name.count("/") == depth]
        if len(here) == 1:
            return here[0]
        if here:
            message = f"The zip has {len(here)} tables ({', '.join(here[:5])}); keep one."
            raise Unreadable(Code.UNSUPPORTED_FORMAT, message)
    message = "The zip has no metadata.jsonl or metadata.csv at its top; add one, with one line a sample."
    raise Unreadable(Code.UNSUPPORTED_FORMAT, message)

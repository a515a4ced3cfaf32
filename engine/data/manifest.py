"""An uploaded file as a data set: a zip with its table, or a bare table. Knows no encoder and no training.

A folder on this machine is read the same way, for whoever checks data before packing it.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType

from domain.manifest import Code, Issue, Schema, errors_in
from engine.data.archive import Archive, Unreadable
from engine.data.folder import Folder
from engine.data.formats import read_table
from engine.data.formats.class_folders import read_class_folders
from engine.data.infer import Layout, lay_out
from engine.data.references import explained, inline_bytes, is_data_url, refuse_address
from engine.data.rows import MediaRef, Row, Rows, Value, class_name
from engine.data.spool import Spool
from engine.data.tables import MAX_TABLE_BYTES, Table
from engine.data.telling import HEAD_BYTES, kind_of, no_table, table_name

__all__ = ["Dataset", "MediaRef", "Row", "Unreadable", "Value", "class_name", "open_dataset", "open_folder"]


@dataclass
class Dataset:
    """An open data set; close it, or use it as a context manager."""

    #: With nothing left open: what was not declared is inferred.
    schema: Schema
    rows: Rows = field(default_factory=Rows.none, repr=False)
    issues: list[Issue] = field(default_factory=list)
    archive: Archive | Folder | None = field(default=None, repr=False)
    #: The media files that lay in the table's own cells.
    embedded: Spool | None = field(default=None, repr=False)
    #: The folder inside the zip that holds the table.
    prefix: str = ""
    #: False where lines were lost that nobody can count, so that no row may be left out for being bad.
    is_whole: bool = True
    #: False for CSV, whose cells are all words.
    typed: bool = True
    #: Whether films that were looked into have no sound track.
    silent: dict[MediaRef, bool] = field(default_factory=dict, repr=False)

    def read(self, ref: MediaRef) -> bytes:
        """A media file's bytes; raises Unreadable. Any thread may read."""
        if ref.place is not None:
            return self._embedded(ref.place)
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

    def _embedded(self, place: int) -> bytes:
        assert self.embedded is not None  # that is where places come from
        return self.embedded[place]

    def close(self) -> None:
        for opened in (self.archive, self.embedded, self.rows):
            if opened is not None:
                opened.close()

    def __enter__(self) -> "Dataset":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_dataset(path: Path, *, schema: Schema | None = None, filename: str | None = None) -> Dataset:
    """Reads the table of a zip, JSONL, CSV or Parquet file, told apart by content, then by `filename`.

    A zip without a table may be class folders. Whatever a user sent, nothing is raised: what is wrong with
    it is in `issues`.
    """
    return _opened(Dataset(schema or Schema()), lambda dataset: _file(dataset, path, filename or path.name))


def open_folder(path: Path, *, schema: Schema | None = None) -> Dataset:
    """The data set in a folder, with a table or of class folders, read in place; nothing is raised either."""
    return _opened(
        Dataset(schema or Schema(), archive=(folder := Folder(path))),
        lambda dataset: _inside(dataset, folder),
    )


def _opened(dataset: Dataset, read: Callable[[Dataset], Table]) -> Dataset:
    try:
        table = read(dataset)
        return _filled(dataset, table)
    except Unreadable as error:
        dataset.issues.append(Issue(error.code, error.message))
        return dataset
    except BaseException:
        dataset.close()
        raise


def _filled(dataset: Dataset, table: Table) -> Dataset:
    dataset.typed, dataset.embedded = table.typed, table.embedded
    dataset.rows = Rows(table.rows, Layout(dataset.schema, {}, {}), table.typed)
    layout, of_columns = lay_out(table, dataset.schema)
    dataset.schema, dataset.is_whole = layout.schema, table.is_whole
    dataset.rows = rows = Rows(table.rows, layout, table.typed)
    dataset.issues += [*table.issues, *of_columns, *rows.issues()]
    if not dataset.rows and not errors_in(dataset.issues):
        dataset.issues.append(Issue(Code.EMPTY_FILE, "The table has no rows; write one line a sample."))
    return dataset


def _file(dataset: Dataset, path: Path, filename: str) -> Table:
    if not path.is_file():
        raise Unreadable(Code.UNSUPPORTED_FORMAT, "This is not a file; send a folder as a zip.")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        kind = kind_of(head, filename.lower())
        if kind == "zip":
            dataset.archive = archive = Archive(path)
            return _archived(dataset, archive)
        if kind != "parquet" and path.stat().st_size > MAX_TABLE_BYTES:
            message = (
                f"A table may have {MAX_TABLE_BYTES} bytes; split it into training and validation files."
            )
            raise Unreadable(Code.TOO_LARGE, message)
        file.seek(0)
        return read_table(file, kind)


def _archived(dataset: Dataset, archive: Archive) -> Table:
    if archive.bomb:
        raise Unreadable(Code.ZIP_BOMB, archive.bomb)
    dataset.issues += archive.issues
    return _inside(dataset, archive)


def _inside(dataset: Dataset, place: Archive | Folder) -> Table:
    """The table of a zip or folder, or else its folders as classes."""
    names = place.names
    name = table_name(names)
    if name is None:
        found = read_class_folders(names, dataset.schema.label or "label")
        if found is None:
            raise no_table(names)
        return found
    dataset.prefix = name.removesuffix(PurePosixPath(name).name)
    try:
        data = place.read(name)
    except Unreadable as error:
        code = Code.UNSUPPORTED_FORMAT if error.code == Code.UNREADABLE_MEDIA else error.code
        raise Unreadable(code, f"'{name}': {error.message}.") from error
    return read_table(io.BytesIO(data), PurePosixPath(name).suffix[1:])

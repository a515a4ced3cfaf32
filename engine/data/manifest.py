"""An uploaded file as a data set: a zip with its table, or a bare table. Knows no encoder and no training.

A folder on this machine is read the same way, for whoever checks data before packing it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType

from domain.manifest import Code, Issue, Schema
from engine.data.archive import Archive, Unreadable
from engine.data.folder import Folder
from engine.data.formats import read_table
from engine.data.formats.class_folders import read_class_folders
from engine.data.infer import MEDIA, Layout, lay_out
from engine.data.issues import Issues
from engine.data.media import IN_PLACE, Media
from engine.data.references import explained, inline_bytes, is_data_url, is_file_id, refuse_address
from engine.data.rows import MediaRef, Row, Rows, Several, Value, class_name
from engine.data.spool import Spool
from engine.data.tables import MAX_TABLE_BYTES, Table
from engine.data.telling import HEAD_BYTES, kind_of, no_table, table_name
from engine.data.uploads import AT_ONCE, Lookup, Uploads

__all__ = [
    "Dataset",
    "MediaRef",
    "Row",
    "Several",
    "Unreadable",
    "Value",
    "class_name",
    "open_dataset",
    "open_folder",
]


#: Of rows that are held while the files that they name are looked up.
_AHEAD_BYTES = 4 * 2**20


@dataclass
class Dataset:
    """An open data set; close it, or use it as a context manager."""

    #: With nothing left open: what was not declared is inferred.
    schema: Schema
    rows: Rows = field(default_factory=Rows.none, repr=False)
    issues: Issues = field(default_factory=Issues)
    archive: Archive | Folder | None = field(default=None, repr=False)
    #: The media files that lay in the table's own cells.
    embedded: Spool | None = field(default=None, repr=False)
    #: The files that cells name by their ids; None where no service is there to ask.
    uploads: Uploads | None = field(default=None, repr=False)
    #: The folder inside the zip that holds the table.
    prefix: str = ""
    #: False where lines were lost that nobody can count, so that no row may be left out for being bad.
    is_whole: bool = True
    #: False for CSV, whose cells are all words.
    typed: bool = True
    #: Of messages, whose answers may be classes, or written text.
    is_chat: bool = False
    #: How its media are decoded.
    media: Media = field(default=IN_PLACE, repr=False)
    #: Whether films that were looked into have no sound track.
    silent: dict[MediaRef, bool] = field(default_factory=dict, repr=False)

    def read(self, ref: MediaRef) -> bytes:
        """A media file's bytes; raises Unreadable. Any thread may read."""
        if ref.place is not None:
            return self._embedded(ref.place)
        if is_data_url(ref.name):
            return inline_bytes(ref.name)
        refuse_address(ref.name)
        # A file beside the table wins, whatever it is called.
        if self.uploads is not None and is_file_id(ref.name) and not self.has(ref.name):
            return self.uploads.read(ref.name)
        try:
            return self._file(ref.name)
        except Unreadable as error:
            raise explained(ref.name, error) from error

    def announce(self, values: Iterable[Value]) -> None:
        """These cells are about to be read: uploaded files that they name are asked for together."""
        if self.uploads is not None:
            self.uploads.announce([name for value in values for name in _ids(value) if not self.has(name)])

    def ahead(self, columns: Collection[str]) -> Iterator[Row]:
        """All rows, some at a time announced before they are read."""
        media = [name for name in columns if self.schema.columns[name].type in MEDIA]
        if self.uploads is None or not media:
            yield from self.rows
            return
        held: list[Row] = []
        size = 0
        for row in self.rows:
            held.append(row)
            size += sum(map(_weight, row.values.values()))
            # Media may stand in the rows themselves.
            if len(held) == AT_ONCE or size > _AHEAD_BYTES:
                self.announce(row.values[name] for row in held for name in media)
                yield from held
                held, size = [], 0
        self.announce(row.values[name] for row in held for name in media)
        yield from held

    def has(self, name: str) -> bool:
        """Whether such a file lies beside the table."""
        return self.archive is not None and self.archive.has(name, folder=self.prefix)

    def _file(self, name: str) -> bytes:
        if self.archive is None:
            message = (
                "a bare table brings no files; upload a zip of the table with its media, or name files by id"
            )
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


def _weight(value: Value) -> int:
    """About how many characters a cell holds."""
    parts = value.parts if isinstance(value, Several) else (value,)
    return sum(len(part.name if isinstance(part, MediaRef) else str(part)) for part in parts)


def _ids(value: Value) -> Iterator[str]:
    """The ids of uploaded files that a cell names."""
    for part in value.parts if isinstance(value, Several) else (value,):
        if isinstance(part, MediaRef) and part.place is None and is_file_id(part.name):
            yield part.name


def open_dataset(
    path: Path,
    *,
    schema: Schema | None = None,
    filename: str | None = None,
    uploads: Lookup | None = None,
    media: Media = IN_PLACE,
) -> Dataset:
    """Reads the table of a zip, JSONL, CSV or Parquet file, told apart by content, then by `filename`.

    `uploads` looks up the files that cells name by their ids. A zip without a table may be class folders. Whatever a user sent, nothing is raised: what is wrong with
    it is in `issues`.
    """
    dataset = Dataset(schema or Schema(), uploads=Uploads(uploads) if uploads else None, media=media)
    return _opened(dataset, lambda dataset: _file(dataset, path, filename or path.name))


def open_folder(path: Path, *, schema: Schema | None = None, media: Media = IN_PLACE) -> Dataset:
    """The data set in a folder, with a table or of class folders, read in place; nothing is raised either."""
    return _opened(
        Dataset(schema or Schema(), archive=(folder := Folder(path)), media=media),
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
    dataset.typed, dataset.embedded, dataset.is_chat = table.typed, table.embedded, table.is_chat
    dataset.rows = Rows(table.rows, Layout(dataset.schema, {}, {}), table.typed)
    layout, of_columns = lay_out(table, dataset.schema, dataset.has)
    dataset.schema, dataset.is_whole = layout.schema, table.is_whole
    dataset.rows = rows = Rows(table.rows, layout, table.typed)
    for found in (table.issues, of_columns, rows.issues()):
        dataset.issues += found
    if not dataset.rows and not dataset.issues.errors:
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
        with place.file(name, most=MAX_TABLE_BYTES) as file:
            return read_table(file, PurePosixPath(name).suffix[1:])
    except Unreadable as error:
        code = Code.UNSUPPORTED_FORMAT if error.code == Code.UNREADABLE_MEDIA else error.code
        raise Unreadable(code, f"'{name}': {error.message}.") from error

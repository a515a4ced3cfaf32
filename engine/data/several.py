"""Several files, or texts, in one cell: how they are written, how many there may be, and what names them together."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

from domain.manifest import ColumnType
from engine.data.references import data_url_end

#: Between the files of a CSV's cell.
SEPARATOR = ";"
#: In one cell; each goes through the encoder.
MOST_FILES = 64
#: A film is many pictures.
MOST_FILMS = 8


def most_of(kind: ColumnType) -> int:
    return MOST_FILMS if kind is ColumnType.VIDEO else MOST_FILES


def files_in(cell: str, is_file: Callable[[str], bool]) -> str | list[str]:
    """A CSV's media cell as its files: `"a.png; b.png"` -> `["a.png", "b.png"]`.

    A cell without a semicolon stays as it is, and so does the name of a file that has one in it.
    """
    if SEPARATOR not in cell or is_file(cell):
        return cell
    parts = list(_parts(cell))
    return cell if len(parts) == 1 else [name for part in parts if (name := part.strip())]


def first_file(cell: str) -> str:
    """The first of a CSV's media cell, as `files_in` tells it if the whole is no file's name; "" if there is none."""
    return next((name for part in _parts(cell) if (name := part.strip())), "")


def _parts(cell: str) -> Iterator[str]:
    """Cut at semicolons, less those that belong to a `data:` URL."""
    start, end = 0, 0
    while end >= 0:
        end = cell.find(SEPARATOR, data_url_end(cell, start))
        yield cell[start:] if end < 0 else cell[start:end]
        start = end + 1


def together(digests: Sequence[bytes]) -> bytes:
    """32 bytes for several contents in their order. Of another hash than one content's: neither passes for the other."""
    return blake2b(b"".join(digests), digest_size=32, person=b"plait several").digest()

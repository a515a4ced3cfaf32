"""What a media cell may name besides a path: a `data:` URL, an address on the web, the id of an upload."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from domain.manifest import Code, ColumnType
from engine.data.archive import Unreadable
from engine.data.tables import MAX_LINE_BYTES, excerpt

_DATA = re.compile(r"data:(?P<type>[^,;]{0,100})(?P<options>(;[^,;]{0,100}){0,8}),", re.IGNORECASE)
_DATA_AT = re.compile(r"\s*" + _DATA.pattern, re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.\-]{1,20}://", re.IGNORECASE)
#: As `domain.ids.new_id` makes them.
_FILE_ID = re.compile(r"file-[a-z2-7]{24}")

_BY_FAMILY = {"image": ColumnType.IMAGE, "audio": ColumnType.AUDIO, "video": ColumnType.VIDEO}


def is_data_url(cell: str) -> bool:
    return cell[:5].lower() == "data:"


def data_url_end(text: str, start: int) -> int:
    """Behind the head of the `data:` URL that begins at `start`, or behind all that may belong to one.

    `start` itself where none begins. Only base64 is sure to hold no semicolon: another URL takes the rest.
    """
    match = _DATA_AT.match(text, start)
    if match is None:
        return start
    return match.end() if match["options"].lower().endswith(";base64") else len(text)


def data_url_type(cell: str) -> ColumnType | None:
    """What a `data:` URL says that it holds."""
    match = _DATA.match(cell)
    return _BY_FAMILY.get(match["type"].partition("/")[0].strip().lower()) if match else None


def shown(cell: str) -> str:
    """A media cell as an issue shows it: of a `data:` URL only its head."""
    return excerpt(cell[: cell.find(",") + 1][:60] or cell[:60]) + "…" if is_data_url(cell) else excerpt(cell)


def inline_bytes(cell: str) -> bytes:
    """The bytes in a `data:` URL; raises Unreadable."""
    match = _DATA.match(cell)
    if match is None:
        message = "a data: URL is written like 'data:image/png;base64,iVBORw…'; correct it"
        raise Unreadable(Code.UNREADABLE_MEDIA, message)
    if len(cell) > MAX_LINE_BYTES:
        message = f"the data: URL has {len(cell)} bytes, at most {MAX_LINE_BYTES} are read; send it as a file"
        raise Unreadable(Code.TOO_LARGE, message)
    data = cell[match.end() :]
    if not match["options"].lower().endswith(";base64"):
        return unquote_to_bytes(data)
    try:
        # Strict, but lines may be broken as tools break them.
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"the data: URL is not whole base64 ({error}); encode the file again"
        raise Unreadable(Code.UNREADABLE_MEDIA, message) from error


def refuse_address(cell: str) -> None:
    """Nothing is fetched for a user: an address may lead into this server's own network."""
    if _ADDRESS.match(cell):
        message = "files are not fetched from addresses; put the file into the zip and write its path"
        raise Unreadable(Code.URL_NOT_ALLOWED, message)


def is_file_id(cell: str) -> bool:
    """Whether it is the id of an uploaded file."""
    return cell.startswith("file-") and _FILE_ID.fullmatch(cell) is not None


def explained(cell: str, error: Unreadable) -> Unreadable:
    """An upload's id that names no file here is a mistake with an answer of its own."""
    if error.code != Code.MISSING_MEDIA or not _FILE_ID.fullmatch(cell.lower()):
        return error
    if is_file_id(cell):
        message = (
            "uploaded files are known to the service alone; let it check the table (plait data check), or put "
            "the file beside the table and write its path"
        )
    else:
        message = "an uploaded file's id is written in small letters; correct it"
    return Unreadable(Code.MISSING_MEDIA, message)

"""What may be sent for which purpose, by the content type that is told or else by the ending of the name.

A first look that spares a long upload: what a file really holds is found when it is read.
"""

from collections.abc import Mapping
from enum import StrEnum

from domain.errors import UnsupportedMedia


class Purpose(StrEnum):
    """OpenAI's purposes, as far as Plait has a use for them."""

    FINE_TUNE = "fine-tune"
    BATCH = "batch"
    EVALS = "evals"
    VISION = "vision"
    USER_DATA = "user_data"


class Content(StrEnum):
    ROWS = "rows"
    ZIP = "zip"
    MEDIA = "media"


#: Nothing is said by these; then the ending of the name tells, if it is one that we know.
_SAYS_NOTHING = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/binary"})
_TYPES: Mapping[str, Content] = {
    "application/json": Content.ROWS,
    "application/jsonl": Content.ROWS,
    "application/jsonlines": Content.ROWS,
    "application/x-jsonlines": Content.ROWS,
    "application/x-ndjson": Content.ROWS,
    "application/csv": Content.ROWS,
    "application/vnd.apache.parquet": Content.ROWS,
    "application/x-parquet": Content.ROWS,
    # What Windows calls a .csv.
    "application/vnd.ms-excel": Content.ROWS,
    "application/zip": Content.ZIP,
    "application/x-zip": Content.ZIP,
    "application/x-zip-compressed": Content.ZIP,
    "application/ogg": Content.MEDIA,
}
_FAMILIES: Mapping[str, Content] = {
    "text": Content.ROWS,
    "image": Content.MEDIA,
    "audio": Content.MEDIA,
    "video": Content.MEDIA,
}
_MEDIA = "aac aif aiff au avi bmp flac gif jpeg jpg m4a mkv mov mp3 mp4 oga ogg opus png ppm tif tiff wav webm webp"
_ENDINGS: Mapping[str, Content] = {
    **dict.fromkeys(("csv", "json", "jsonl", "ndjson", "parquet", "txt"), Content.ROWS),
    "zip": Content.ZIP,
    **dict.fromkeys(_MEDIA.split(), Content.MEDIA),
}
#: Known for what they are, and read for no purpose but `user_data`.
_FOREIGN_NAMES = "7z bz2 doc docx exe gz pdf pkl pt rar tar tgz xls xlsx xz zst"
_FOREIGN = frozenset(_FOREIGN_NAMES.split())

_ROWS_OR_ZIP = frozenset({Content.ROWS, Content.ZIP})
#: `user_data` is not here: it may be anything.
_ALLOWED: Mapping[Purpose, frozenset[Content]] = {
    Purpose.FINE_TUNE: _ROWS_OR_ZIP,
    Purpose.BATCH: _ROWS_OR_ZIP,
    Purpose.EVALS: _ROWS_OR_ZIP,
    Purpose.VISION: frozenset(Content),
}
_TOLD = {
    Content.ROWS: "text (application/jsonl, text/csv, text/*), application/vnd.apache.parquet",
    Content.ZIP: "application/zip",
    Content.MEDIA: "image/*, audio/*, video/*",
}


def refuse_foreign(purpose: Purpose, content_type: str, filename: str, *, param: str) -> None:
    """Raises UnsupportedMedia for what no use of this purpose can read."""
    allowed = _ALLOWED.get(purpose)
    if allowed is None:
        return
    told = content_type.partition(";")[0].strip().lower()
    ending = filename.rpartition(".")[2].lower() if "." in filename else ""
    if told in _SAYS_NOTHING:
        is_fine = ending not in _FOREIGN and _ENDINGS.get(ending, Content.ROWS) in allowed
        told = f".{ending}"
    else:
        is_fine = (_TYPES.get(told) or _FAMILIES.get(told.partition("/")[0])) in allowed
    if not is_fine:
        listed = ", ".join(_TOLD[content] for content in Content if content in allowed)
        raise UnsupportedMedia(
            f"{told[:100]} is not read for the purpose {purpose}; it takes {listed} or application/octet-stream, "
            f"and the purpose {Purpose.USER_DATA} takes any type.",
            param=param,
        )

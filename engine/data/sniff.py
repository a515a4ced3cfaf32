"""What kind of media bytes are, by how they begin. Where a name tells it, the name is asked instead."""

from domain.manifest import ColumnType

_PICTURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"P5",
    b"P6",
)
_SOUNDS = (b"fLaC", b"OggS", b"ID3", b".snd", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"FORM")
#: A RIFF file says at byte 8 what it holds.
_IN_RIFF = {b"WEBP": ColumnType.IMAGE, b"WAVE": ColumnType.AUDIO, b"AVI ": ColumnType.VIDEO}
#: So does an MP4, where it holds sound alone; a Matroska may hold either and mostly holds a film.
_SOUND_BRANDS = (b"M4A ", b"M4B ")
_FILMS = (b"\x1aE\xdf\xa3", b"FLV\1")


def media_kind(data: bytes) -> ColumnType | None:
    """`b"\\x89PNG\\r\\n..."` -> `ColumnType.IMAGE`; None for bytes of another kind."""
    if data.startswith(b"RIFF"):
        return _IN_RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return ColumnType.AUDIO if data[8:12] in _SOUND_BRANDS else ColumnType.VIDEO
    if data.startswith(_FILMS):
        return ColumnType.VIDEO
    if data.startswith(_PICTURES):
        return ColumnType.IMAGE
    return ColumnType.AUDIO if data.startswith(_SOUNDS) else None

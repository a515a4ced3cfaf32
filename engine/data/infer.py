"""Which columns a table has and what they hold, where its schema leaves that open. Reads no media."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from domain.manifest import SOUND, Code, Column, ColumnType, Issue, Schema
from engine.data.raw_rows import Embedded, TooMany
from engine.data.references import data_url_type, is_data_url, is_file_id
from engine.data.several import SEPARATOR, first_file
from engine.data.tables import Table, excerpt

MEDIA = frozenset({ColumnType.IMAGE, ColumnType.AUDIO, ColumnType.VIDEO})

_IMAGES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "heic", "avif")
_SOUNDS = (
    *("wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "au", "m4a", "aac", "wma"),
    *("mka", "weba", "amr", "ac3", "mp2", "wv", "caf"),
)
_FILMS = (*("mp4", "m4v", "mov", "mkv", "webm", "avi", "flv", "wmv"), *("mpg", "mpeg", "m2ts", "ogv", "3gp"))
_BY_EXTENSION = (
    dict.fromkeys(_IMAGES, ColumnType.IMAGE)
    | dict.fromkeys(_SOUNDS, ColumnType.AUDIO)
    | dict.fromkeys(_FILMS, ColumnType.VIDEO)
)
_BY_WORD = (
    dict.fromkeys(("image", "img", "photo", "picture", "pic"), ColumnType.IMAGE)
    | dict.fromkeys(("audio", "sound", "voice", "speech", "wav"), ColumnType.AUDIO)
    | dict.fromkeys(("video", "film", "movie", "footage"), ColumnType.VIDEO)
)
_SUFFIXES = ("_file_name", "_file_names")
_BARE = ("file_name", "file_names")
_LABELS, _IDS = ("label", "target", "labels"), ("id", "row_id")

#: The id of an uploaded file: what is in it, nobody can see here.
_UPLOAD = "upload"
_FILES = frozenset({*MEDIA, "bytes", _UPLOAD})

#: Longer cells are prose, even if they end like a file's name.
_MAX_PATH = 1024
#: The longest name that a tower may have, and more columns than any model takes.
_MAX_NAME, _MAX_COLUMNS = 200, 1000


def _no_file(_: str) -> bool:
    return False


@dataclass(frozen=True)
class Layout:
    """The schema with nothing left open, and the column that each key of the table belongs to."""

    schema: Schema
    keys: Mapping[str, str]
    #: A bare `file_name` belongs to the column of its value's type.
    by_type: Mapping[ColumnType, str]
    #: Whether a file of that name lies beside the table.
    is_file: Callable[[str], bool] = _no_file
    #: Whether the table's cells have types of their own; else one text may name several files.
    typed: bool = True

    @cached_property
    def sounds(self) -> Mapping[str, str]:
        """Columns that no key fills: they are the sound of another's films."""
        return {sound: film for sound, film in self.schema.sounds.items() if sound in self.schema.columns}

    def column_of(self, key: str, cell: Any) -> str | None:
        if key in _BARE and self.by_type:
            first = cell[0] if isinstance(cell, list) and cell else cell
            is_text = isinstance(first, str)
            kind = _told_kind(first, self.typed, self.is_file) if is_text else getattr(first, "kind", None)
            return self.by_type.get(kind or next(iter(self.by_type)), next(iter(self.by_type.values())))
        return self.keys.get(key)


def is_missing(cell: Any) -> bool:
    """null or an empty string: there is nothing."""
    return cell is None or cell == ""


def media_type(text: str) -> ColumnType | None:
    """What a path names, by its extension, or a `data:` URL by its type."""
    if is_data_url(text):
        return data_url_type(text)
    if len(text) > _MAX_PATH or "\n" in text:
        return None
    # By hand, as it is asked for every cell of text: pathlib took a fifth of a table's time.
    stem, _, extension = text[text.rfind("/") + 1 :].rpartition(".")
    return _BY_EXTENSION.get(extension.lower()) if stem else None


def _told_kind(cell: str, typed: bool, is_file: Callable[[str], bool]) -> ColumnType | None:
    """What a cell names: its first file, where it may name several."""
    whole = media_type(cell)
    if typed or SEPARATOR not in cell:
        return whole
    first = media_type(first_file(cell))
    # Asked last: looking for the file costs the most.
    return whole if first is whole or is_file(cell) else first


def as_number(cell: Any) -> float | None:
    """The finite number that a cell holds, or that its text writes."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        number = float(cell)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def lay_out(table: Table, declared: Schema, is_file: Callable[[str], bool]) -> tuple[Layout, list[Issue]]:
    """`declared` with what it leaves open inferred from all rows, and what is wrong with the columns."""
    kinds = _kinds_by_key(table, is_file)
    issues = list(_unfit(kinds))
    roles = _roles(declared, kinds)
    taken = _taken(declared, roles)
    fit = {key: held for key, held in kinds.items() if _fits(key) and key not in taken}
    by_type = _bare_names(fit, declared)
    keys: dict[str, str] = {}
    columns: dict[str, Column] = {}
    for key, held in list(fit.items())[:_MAX_COLUMNS]:
        if key in _BARE and by_type:
            continue
        name = column_name(key, declared)
        column = declared.columns.get(name) or columns.get(name) or _inferred(key, name, held, table.typed)
        if column is None:
            issues.append(_unusable(name, held))
        else:
            keys[key], columns[name] = name, column
    for kind, name in by_type.items():
        columns.setdefault(name, declared.columns.get(name) or Column(type=kind))
    issues += _add_sounds(columns, declared)
    issues += _absent(declared, kinds, {*columns, *taken}) if table.rows else []
    return Layout(Schema(columns=columns, **roles), keys, by_type, is_file, table.typed), issues


def column_name(key: str, declared: Schema) -> str:
    """`image_file_name`, or `image_file_names`, is the column `image`, unless the schema names a column just so."""
    suffix = next((suffix for suffix in _SUFFIXES if key.endswith(suffix)), "")
    stem = key.removesuffix(suffix)
    return key if key in declared.columns or not stem else stem


def _kinds_by_key(table: Table, is_file: Callable[[str], bool]) -> dict[str, Counter[str]]:
    """How often each key holds text, numbers, paths and so on; missing cells count nowhere."""
    kinds: dict[str, Counter[str]] = {}
    for row in table.rows:
        for key, cell in row.cells.items():
            if key not in kinds:
                kinds[key] = Counter()
            if not is_missing(cell):
                kinds[key][_kind(cell, table.typed, is_file)] += 1
    return kinds


def _kind(cell: Any, typed: bool, is_file: Callable[[str], bool]) -> str:
    if isinstance(cell, bool):
        return "flag"
    if isinstance(cell, Embedded | TooMany):
        return cell.kind or "bytes"
    if isinstance(cell, int | float):
        return "number"
    if isinstance(cell, list):
        return _kind_of_list(cell)
    if not isinstance(cell, str):
        return "nested"
    if kind := _told_kind(cell, typed, is_file):
        return kind
    if cell.startswith("file-") and is_file_id(cell if typed else cell.partition(";")[0].strip()):
        return _UPLOAD
    return "number" if not typed and as_number(cell) is not None else "text"


def _kind_of_list(cells: list[Any]) -> str:
    """Several files are of the kind of the first; lists of anything else are nothing that is told by itself."""
    kinds = [_kind(cell, True, _no_file) for cell in cells if isinstance(cell, str | Embedded)]
    return kinds[0] if len(kinds) == len(cells) and cells and all(k in _FILES for k in kinds) else "nested"


def _roles(declared: Schema, keys: Mapping[str, Any]) -> dict[str, str | None]:
    def found(name: str | None, usual: Sequence[str]) -> str | None:
        return name or next((n for n in usual if n in keys and n not in declared.columns), None)

    return {
        "label": found(declared.label, _LABELS),
        "id": found(declared.id, _IDS),
        "split": found(declared.split, ("split",)),
        "group": declared.group,
    }


def _taken(declared: Schema, roles: dict[str, str | None]) -> set[str]:
    """Keys that are no features. A second word for the label would give it away, so it is none either."""
    usual = set() if declared.label else set(_LABELS)
    usual |= set() if declared.id else set(_IDS)
    return {name for name in roles.values() if name} | (usual - set(declared.columns))


def _fits(key: str) -> bool:
    return 0 < len(key) <= _MAX_NAME and key.isprintable()


def _unfit(kinds: Mapping[str, Counter[str]]) -> Iterator[Issue]:
    for key in kinds:
        if not _fits(key):
            shown = excerpt(key)
            message = f"The column '{shown}' is not used: a name has 1 to {_MAX_NAME} visible characters."
            yield Issue(Code.SCHEMA_MISMATCH, message, column=shown, severity="warning")
    if len(kinds) > _MAX_COLUMNS:
        message = f"The table has {len(kinds)} columns; at most {_MAX_COLUMNS} are read. Remove some."
        yield Issue(Code.SCHEMA_MISMATCH, message)


def _bare_names(kinds: Mapping[str, Counter[str]], declared: Schema) -> dict[ColumnType, str]:
    """The columns that a bare `file_name` fills: the schema's only one of the type, else named as the type."""
    bare = [key for key in _BARE if key in kinds]
    if not bare or any(key in declared.columns for key in bare):
        return {}
    filled = {column_name(key, declared) for key in kinds if key not in _BARE}
    held = sum((kinds[key] for key in bare), Counter[str]())
    found = [ColumnType(kind) for kind, _ in held.most_common() if kind in MEDIA]
    by_type: dict[ColumnType, str] = {}
    for kind in found:
        open_names = [n for n, c in declared.columns.items() if c.type is kind and n not in filled]
        by_type[kind] = open_names[0] if len(open_names) == 1 else str(kind)
    return by_type


def _inferred(key: str, name: str, held: Counter[str], typed: bool) -> Column | None:
    if key.endswith(_SUFFIXES) and name != key:
        kind = _by_stem(name) or _usual_media(held, at_least=1)
    else:
        kind = _by_ids(name, held) if 2 * held[_UPLOAD] >= max(1, held.total()) else _by_values(held, typed)
    return Column(type=kind) if kind else None


def _by_ids(name: str, held: Counter[str]) -> ColumnType | None:
    """Of uploads the type is told by other cells' endings, or by a word in the key; else the schema must say it."""
    return _usual_media(held, at_least=1) or _by_stem(name)


def _by_stem(stem: str) -> ColumnType | None:
    words = re.split(r"[^a-z]+", stem.lower())
    return next((_BY_WORD[word] for word in words if word in _BY_WORD), None)


def _usual_media(held: Counter[str], at_least: float) -> ColumnType | None:
    kind, count = max(((kind, held[kind]) for kind in sorted(MEDIA)), key=lambda pair: pair[1])
    return kind if count >= at_least else None


def _by_values(held: Counter[str], typed: bool) -> ColumnType | None:
    # One odd cell among paths is a broken path, not a reason to read them all as prose.
    if media := _usual_media(held, at_least=max(1, held.total() / 2)):
        return media
    text = held["text"] + held[_UPLOAD] + sum(held[kind] for kind in MEDIA)
    if not typed:
        return ColumnType.NUMBER if held["number"] and not text else ColumnType.TEXT
    counts = {
        ColumnType.TEXT: text,
        ColumnType.NUMBER: held["number"],
        ColumnType.CATEGORY: held["flag"],
        None: held["nested"] + held["bytes"],
    }
    return max(counts, key=lambda kind: counts[kind])


def _add_sounds(columns: dict[str, Column], declared: Schema) -> Iterator[Issue]:
    """Gives each column of films that says `use_audio` its column of sounds; what the schema says of that one counts."""
    for film, column in list(columns.items()):
        name = film + SOUND
        sound = declared.columns.get(name) or Column(type=ColumnType.AUDIO, max_seconds=column.max_seconds)
        param = f"schema.columns.{film}.use_audio"
        if not column.use_audio:
            continue
        if name in columns:
            message = f"'{name}' is a column of the table and the sound of '{film}'; rename it, or set use_audio to false."
            yield Issue(Code.DUPLICATE_COLUMN, message, column=name, param=param)
        elif sound.type is not ColumnType.AUDIO or not _fits(name):
            message = f"'{name}' is the sound of '{film}': its type is audio, and its name has at most {_MAX_NAME} characters."
            yield Issue(Code.SCHEMA_MISMATCH, message, column=name, param=param)
        else:
            columns[name] = sound


def _unusable(name: str, held: Counter[str]) -> Issue:
    if held["bytes"]:
        message = (
            f"The bytes in '{name}' are no picture or sound by their beginning; name its type in the schema."
        )
    elif held["nested"]:
        message = (
            f"The column '{name}' is not used: it holds lists or objects. Write one plain value a cell; "
            "lists of texts are read where the schema says that the column is text."
        )
    else:
        message = f"What '{name}' holds cannot be told from its files' names; name its type in the schema."
    return Issue(Code.SCHEMA_MISMATCH, message, column=name, severity="warning")


def _absent(declared: Schema, keys: Mapping[str, Any], known: set[str]) -> Iterator[Issue]:
    there = ", ".join(sorted(excerpt(key) for key in list(keys)[:50])) or "none"
    wanted = {"columns." + name: name for name in declared.columns if name not in known}
    for role in ("id", "split", "group"):
        name = getattr(declared, role)
        if name is not None and name not in keys:
            wanted[role] = name
    for path, name in wanted.items():
        message = f"The schema's {path.split('.')[0]} names '{name}', which no row has; there are: {there}."
        yield Issue(Code.MISSING_COLUMN, message, column=name, param=f"schema.{path}")

"""What a prediction is asked for: the request's words, its limits, and what each cell of a row is.

A cell that cannot be used becomes a `Flaw` of its row; only what is wrong with the request as a whole refuses it.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from domain.families import FAMILIES, PRESETS
from domain.shapes import Shape
from domain.specs import TimeLimit

MOST_ROWS = 256
#: More than any model has towers; a row holds this many beside its id.
MOST_COLUMNS = 64
LONGEST_NAME = 200
#: Characters of one text: far more than any tower reads.
LONGEST_TEXT = 100_000
#: Files, or texts, in one cell; each goes through the encoder.
MOST_FILES = 64
#: Media up to so many bytes lie in the job's row, as long as the row has room for them.
INLINE_BYTES = 64 * 1024
#: Bytes of media that one row takes: it is read at every look at the job.
ROW_BYTES = 1024 * 1024

_MEDIA_TYPES = ("image/", "audio/", "video/", "application/octet-stream", "application/ogg")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,31}://\S+")
_LONGEST_URL = 8192
#: Characters within which the comma of a data URL stands.
_LONGEST_HEAD = 300
_AS_TEXT = 'to send it as text, write {"text": "..."}'


class Code(StrEnum):
    """What the door can find wrong with a cell; the worker adds those of `domain.manifest.Code`."""

    URL_NOT_ALLOWED = "url_not_allowed"
    INVALID_DATA_URL = "invalid_data_url"
    UNSUPPORTED_FORMAT = "unsupported_format"
    EMPTY_MEDIA = "empty_media"
    FILE_NOT_FOUND = "file_not_found"
    TEXT_TOO_LONG = "text_too_long"
    INVALID_VALUE = "invalid_value"


@dataclass(frozen=True)
class Flaw:
    """Why a cell cannot be used, and what to do."""

    code: Code
    message: str


@dataclass(frozen=True)
class FileRef:
    """A cell that names an uploaded file; whether it is there is the database's to say."""

    id: str


#: Text (which may write a number), true or false, media bytes, an uploaded file, nothing - or what is wrong.
Cell = str | bool | bytes | FileRef | Flaw | None


def _fine_tuned(model: str) -> str:
    if model in FAMILIES + PRESETS:
        raise ValueError(
            f"'{model}' is a family and has learned nothing yet; a fine-tuned model is needed: "
            "the `fine_tuned_model` of a job that succeeded (ft:...)"
        )
    return model


def _row_id(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _only(name: str) -> dict[str, Any]:
    told = {"properties": {name: {"type": "string"}}, "required": [name], "additionalProperties": False}
    return {"type": "object", **told}


_CELL_SCHEMA = {
    "description": "Text; a number; a category's word, whole number, true or false; a data: URL or an uploaded file for a picture, "
    "a sound or a film; null where there is none; a list for several files in one cell.",
    "anyOf": [
        {"type": ["string", "number", "boolean", "null"]},
        _only("file_id"),
        _only("text"),
        {
            "type": "array",
            "items": {"anyOf": [{"type": ["string", "number"]}, _only("file_id"), _only("text")]},
            "maxItems": MOST_FILES,
        },
    ],
}


class Row(Shape):
    """One sample: any subset of the model's columns, and an id that the answer repeats (else its number)."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, WithJsonSchema(_CELL_SCHEMA)]] = Field(init=False)

    id: Annotated[str | None, BeforeValidator(_row_id)] = Field(
        default=None, min_length=1, max_length=200, strict=True
    )

    @property
    def cells(self) -> dict[str, Any]:
        return self.__pydantic_extra__ or {}

    @model_validator(mode="after")
    def _columns_have_names(self) -> "Row":
        if len(self.cells) > MOST_COLUMNS:
            raise ValueError(f"a row holds at most {MOST_COLUMNS} columns")
        if any(not 1 <= len(name) <= LONGEST_NAME or "\0" in name for name in self.cells):
            raise ValueError(f"a column's name has 1 to {LONGEST_NAME} characters, none of them NUL")
        return self


_Label = Annotated[str, Field(max_length=512)]


_Stop = Annotated[str, Field(min_length=1, max_length=100)]
#: As in OpenAI's chat completions.
MOST_STOPS = 4
#: What only a model that writes can be asked for.
WRITING = ("max_tokens", "temperature", "seed", "stop")


class Predict(Shape):
    """What `POST /v1/predictions` takes."""

    model_config = ConfigDict(strict=True)

    model: Annotated[str, AfterValidator(_fine_tuned)] = Field(min_length=1, max_length=300)
    inputs: list[Row] = Field(min_length=1, max_length=MOST_ROWS)
    top_k: int = Field(default=1, ge=1, le=1000, description="how many classes `top` lists")
    return_embeddings: bool = False
    on_bad_input: Literal["error", "mask"] = Field(
        default="error", description="mask: a cell that cannot be read counts as missing, with a warning"
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="of a model that writes: at most so many tokens; none: what training allowed",
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, strict=False, description="0, or none: the likeliest token each time"
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="of what is drawn at a temperature above 0"
    )
    stop: _Stop | Annotated[list[_Stop], Field(max_length=MOST_STOPS)] | None = Field(
        default=None, description="the answer ends before any of these texts"
    )
    timeout_s: TimeLimit = None
    background: bool = Field(default=False, description="answer at once, with a 202")
    metadata: dict[Annotated[str, Field(max_length=64)], _Label] | None = Field(default=None, max_length=16)

    @property
    def writing(self) -> dict[str, Any]:
        """What was said of how the answer is written."""
        said = {name: getattr(self, name) for name in WRITING if getattr(self, name) is not None}
        if isinstance(self.stop, str):
            said["stop"] = [self.stop]
        return said

    def misfits(self, family: str) -> Iterator[tuple[str, str]]:
        """The name and the reason of every option that makes no sense for a model of `family`."""
        if family != "vlm":
            for name in self.writing:
                yield name, f"{self.model} writes no text; leave {name} out"
            return
        for name in ("top_k", "return_embeddings"):
            if getattr(self, name) != type(self).model_fields[name].default:
                yield (
                    name,
                    f"{self.model} writes a text, which has no classes and no vector; leave {name} out",
                )

    def file_ids(self) -> set[str]:
        """The uploaded files that cells name."""
        cells = (cell for row in self.inputs for cell in row.cells.values())
        parts = (part for cell in cells for part in (cell if isinstance(cell, list) else [cell]))
        return {
            ref.id for part in parts if isinstance(part, dict) and isinstance(ref := read_cell(part), FileRef)
        }


def flaw_of_list(cells: list[Any]) -> Flaw | None:
    """What is wrong with several files in one cell, beside what is wrong with one of them."""
    if len(cells) > MOST_FILES:
        return Flaw(
            Code.INVALID_VALUE,
            f"the list has {len(cells)} files, at most {MOST_FILES} are read; leave some out",
        )
    if any(cell is None or cell == "" or isinstance(cell, list) for cell in cells):
        return Flaw(Code.INVALID_VALUE, "a list holds files or texts: no null, no empty text, no other list")
    return None


def read_cell(value: Any) -> Cell:
    """What a row's value is, as JSON gives it. Whether its column takes that, the model knows."""
    if isinstance(value, str):
        return _of_string(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict) and len(value) == 1:
        return _of_object(*next(iter(value.items())))
    if value is None:
        return None
    message = "must be text, a number, true or false, null, a data: URL or {'file_id': '...'}, or a list of texts or media"
    return Flaw(Code.INVALID_VALUE, message)


def _of_object(name: str, value: Any) -> Cell:
    if name == "file_id" and isinstance(value, str):
        return FileRef(value) if 1 <= len(value) <= 100 else absent(value[:100])
    if name == "text" and isinstance(value, str):
        return _text(value)
    if name in ("url", "image_url", "audio_url"):
        return _no_url()
    return Flaw(Code.INVALID_VALUE, "an object here is {'file_id': '...'} or {'text': '...'}")


def _of_string(value: str) -> Cell:
    # `data: it was cold` is a sentence: in a data URL the type follows at once.
    if value[:5].lower() == "data:" and value[5:6].strip():
        return _of_data_url(value)
    if "://" in value[:40] and len(value) <= _LONGEST_URL and _URL.fullmatch(value.strip()):
        return _no_url()
    return _text(value)


def _text(value: str) -> Cell:
    if len(value) > LONGEST_TEXT:
        return Flaw(
            Code.TEXT_TOO_LONG, f"the text has {len(value)} characters; {LONGEST_TEXT} are the most, cut it"
        )
    # As in a data set: an empty text is none.
    return value or None


def _no_url() -> Flaw:
    return Flaw(
        Code.URL_NOT_ALLOWED,
        f"the server fetches no addresses; send the bytes as a data: URL, upload them as a file, or, {_AS_TEXT}",
    )


def absent(file_id: str) -> Flaw:
    """The file that a cell names is not there, or another tenant's."""
    return Flaw(Code.FILE_NOT_FOUND, f"there is no file {file_id}; upload it first")


def empty() -> Flaw:
    return Flaw(Code.EMPTY_MEDIA, "there are no bytes in it; leave the column out where there is none")


def _of_data_url(value: str) -> Cell:
    """`data:<type>[;base64],<data>` (RFC 2397). The type is only a hint: what the bytes are, they say themselves."""
    comma = value.find(",", 0, _LONGEST_HEAD)
    if comma < 0:
        return _broken("it is not written data:<type>;base64,<data>")
    kind, *parameters = (part.strip().lower() for part in value[len("data:") : comma].split(";"))
    if kind and not kind.startswith(_MEDIA_TYPES):
        return Flaw(
            Code.UNSUPPORTED_FORMAT,
            f"'{kind[:100]}' is neither a picture nor a sound; send text as a plain string",
        )
    data = value[comma + 1 :]
    try:
        found = _base64(data) if "base64" in parameters else unquote_to_bytes(data)
    except (binascii.Error, UnicodeEncodeError):
        return _broken("its base64 is broken or cut off")
    return found or empty()


def _base64(data: str) -> bytes:
    """Strict, but lines may be broken as tools break them."""
    if any(blank in data for blank in " \n\r\t"):
        data = "".join(data.split())
    return b64decode(data.encode("ascii"), validate=True)


def _broken(why: str) -> Flaw:
    return Flaw(Code.INVALID_DATA_URL, f"the data: URL cannot be read: {why}; {_AS_TEXT}")

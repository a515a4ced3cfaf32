"""What a data set says of itself: column types, schema, splits, and the issues found in it."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ColumnType(StrEnum):
    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    NUMBER = "number"
    CATEGORY = "category"


#: The types that a pretrained encoder reads; each tower takes one such column.
MODALITIES = frozenset({ColumnType.TEXT, ColumnType.IMAGE, ColumnType.AUDIO, ColumnType.VIDEO})

#: The types whose towers are small networks that each job trains from nothing.
TABULAR = frozenset({ColumnType.NUMBER, ColumnType.CATEGORY})


#: What is put behind the name of a column of films to name their sound.
SOUND = ".audio"
#: Of one film; each goes through the encoder.
MOST_FRAMES = 128


class Column(BaseModel):
    """One column: its type and, for sound and films, how it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: ColumnType
    sampling_rate: int | None = Field(
        default=None, ge=1000, le=192_000, description="hertz; noted, not needed: sound is resampled"
    )
    max_seconds: float | None = Field(default=None, gt=0, le=600, description="longer sound or film is cut")
    num_frames: int | None = Field(default=None, ge=1, le=MOST_FRAMES, description="frames taken of a film")
    use_audio: bool = Field(
        default=False, description="a film's sound is a column, too: its name is this one's and `.audio`"
    )

    @model_validator(mode="after")
    def _only_films_bring_their_sound(self) -> "Column":
        if self.use_audio and self.type is not ColumnType.VIDEO:
            raise ValueError(f"use_audio is for columns of films (type: video), not of {self.type}")
        return self


class Schema(BaseModel):
    """Which columns a data set has and which of them are label, id, split and group."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, Column] = Field(default_factory=dict)
    label: str | None = Field(default=None, description="what is learned; none: label, target or labels")
    id: str | None = Field(default=None, description="a row's name in messages; none: id, row_id or the line")
    split: str | None = Field(default=None, description="train, validation or test; none: split")
    group: str | None = Field(
        default=None, description="rows of one group are held out together or not at all"
    )

    @property
    def sounds(self) -> dict[str, str]:
        """Columns that are the sound of films, and the films' columns."""
        return {name + SOUND: name for name, column in self.columns.items() if column.use_audio}


class Split(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


_SPLIT_ALIASES = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "validation": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
}


def split_name(value: str | None) -> Split | None:
    """`"val"` -> `Split.VALIDATION`; None for a word that is no split."""
    return _SPLIT_ALIASES.get(str(value).strip().lower()) if value is not None else None


class Code(StrEnum):
    """Every problem that a check can name. An issue's severity says whether it stops a job."""

    EMPTY_FILE = "empty_file"
    UNSUPPORTED_FORMAT = "unsupported_format"
    ENCODING_ERROR = "encoding_error"
    INVALID_JSON = "invalid_json"
    MISSING_COLUMN = "missing_column"
    DUPLICATE_COLUMN = "duplicate_column"
    SCHEMA_MISMATCH = "schema_mismatch"
    LABEL_MISSING = "label_missing"
    LABEL_TYPE_MISMATCH = "label_type_mismatch"
    UNKNOWN_CLASS = "unknown_class"
    SINGLE_CLASS = "single_class"
    TOO_FEW_EXAMPLES = "too_few_examples"
    CLASS_IMBALANCE = "class_imbalance"
    MISSING_MEDIA = "missing_media"
    UNREADABLE_MEDIA = "unreadable_media"
    UNSUPPORTED_CODEC = "unsupported_codec"
    ZERO_DURATION = "zero_duration"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    PATH_ESCAPES_ARCHIVE = "path_escapes_archive"
    ZIP_BOMB = "zip_bomb"
    URL_NOT_ALLOWED = "url_not_allowed"
    ALL_MODALITIES_MISSING = "all_modalities_missing"
    HIGH_MISSING_RATE = "high_missing_rate"
    UNKNOWN_SPLIT = "unknown_split"
    DUPLICATE_ROW = "duplicate_row"
    TRAIN_VALID_OVERLAP = "train_valid_overlap"
    PLACEHOLDER_COUNT_MISMATCH = "placeholder_count_mismatch"
    TEXT_TOO_LONG = "text_too_long"
    HIGH_CARDINALITY = "high_cardinality"
    CONSTANT_COLUMN = "constant_column"
    TOO_MANY_BAD_ROWS = "too_many_bad_rows"
    ENCODER_UNAVAILABLE = "encoder_unavailable"


Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Issue:
    """One problem: where it is (line from 1, column), what it is (code), and what to do (message)."""

    code: str
    message: str
    line: int | None = None
    column: str | None = None
    value: str | None = None
    severity: Severity = "error"
    param: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

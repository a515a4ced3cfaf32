"""The shapes of uploads in parts: what is asked for, and what is told. OpenAI's, and a few fields of ours."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from api import shapes
from db import tables
from db.uploads import Standing
from domain import shapes as asked
from domain.content_types import Purpose
from domain.manifest import Schema
from domain.uploads import MOST_PARTS

#: OpenAI's limits for the life of a file.
_SHORTEST_LIFE_S, _LONGEST_LIFE_S = 3600, 30 * 24 * 3600


class ExpiresAfter(asked.Shape):
    """When the file that comes of it is deleted; without it, when you delete it."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=_SHORTEST_LIFE_S, le=_LONGEST_LIFE_S)


class NewUpload(asked.Shape):
    bytes: int = Field(ge=1, lt=2**63, description="of the whole file")
    filename: str = Field(min_length=1, max_length=4096)
    mime_type: str = Field(max_length=255)
    purpose: Purpose
    schema_: Schema | None = Field(default=None, alias="schema", description="columns, label, split, group")
    expires_after: ExpiresAfter | None = None


class Complete(asked.Shape):
    part_ids: list[Annotated[str, Field(max_length=64)]] = Field(min_length=1, max_length=MOST_PARTS)
    md5: str | None = Field(default=None, pattern="^[0-9a-fA-F]{32}$", description="of the whole file")


class PartForm(asked.Shape):
    """One part: its bytes, in a field named `data`."""

    model_config = ConfigDict(
        json_schema_extra={
            "properties": {"data": {"type": "string", "contentMediaType": "application/octet-stream"}},
            "required": ["data"],
        }
    )


class Upload(shapes.Shape):
    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    mime_type: str
    status: str
    #: What has arrived so far; more than `bytes` where parts were sent twice.
    received_bytes: int
    parts: int
    #: The file that came of it, as long as it is there.
    file: shapes.File | None
    schema_: Any | None = Field(serialization_alias="schema")


class UploadPart(shapes.Listed):
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
    bytes: int
    sha256: str


class UploadPartPage(shapes.Page[UploadPart]):
    """Parts that have arrived."""


def upload(standing: Standing) -> Upload:
    row = standing.upload
    return Upload(
        id=row.id,
        bytes=row.bytes,
        created_at=int(row.created_at),
        expires_at=int(row.expires_at),
        filename=row.filename,
        purpose=row.purpose,
        mime_type=row.mime_type,
        status=standing.status,
        received_bytes=row.received,
        parts=row.parts,
        file=shapes.file(standing.file) if standing.file else None,
        schema_=row.schema,
    )


def part(row: tables.UploadPart) -> UploadPart:
    return UploadPart(
        id=row.id,
        created_at=int(row.created_at),
        upload_id=row.upload,
        bytes=row.bytes,
        sha256=row.sha256,
    )

"""Reads a multipart upload: one file, its purpose, its schema. Stores nothing."""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO, cast

from flask import request
from pydantic import ConfigDict, Field
from werkzeug.datastructures import FileStorage

from api.requests import JSON_LIMIT, read_json
from domain.content_types import Purpose, refuse_foreign
from domain.errors import BadRequest, UnsupportedMedia
from domain.manifest import Schema
from domain.shapes import Shape, parse

#: What the form may hold beside the file itself: names, boundaries, the schema.
FORM_SLACK = JSON_LIMIT
_LONGEST_NAME = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _with_file(schema: dict[str, Any]) -> None:
    schema["properties"]["file"] = {"type": "string", "contentMediaType": "application/octet-stream"}
    schema["required"].append("file")


class UploadForm(Shape):
    """The fields of the form beside `file`."""

    model_config = ConfigDict(json_schema_extra=_with_file)

    purpose: Purpose
    schema_: Schema | None = Field(default=None, alias="schema", description="columns, label, split, group")


@dataclass(frozen=True)
class Upload:
    filename: str
    form: UploadForm
    stream: BinaryIO

    @property
    def schema(self) -> dict[str, Any] | None:
        return self.form.schema_.model_dump(mode="json", exclude_defaults=True) if self.form.schema_ else None

    def body_hash(self, content: str) -> str:
        """Equal for equal uploads; `content` is the hash of the bytes."""
        told = "\n".join([content, self.form.model_dump_json(by_alias=True), self.filename])
        return sha256(told.encode()).hexdigest()


def receive(max_bytes: int) -> Upload:
    """The upload that the request carries, which may take `max_bytes`."""
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMedia("Send the file as multipart/form-data, in a part named `file`.")
    request.max_content_length = max_bytes + FORM_SLACK
    request.max_form_memory_size = JSON_LIMIT
    part, form = _file_part(), _form()
    filename = base_name(part.filename or "")
    refuse_foreign(form.purpose, part.mimetype, filename, param="file")
    return Upload(filename, form, cast(BinaryIO, part.stream))


def _file_part() -> FileStorage:
    parts = request.files.getlist("file")
    if len(parts) != 1 or len(request.files) != 1:
        raise BadRequest(
            "Send exactly one file, in a part named `file` that has a file name.",
            code="missing_file",
            param="file",
        )
    part = parts[0]
    if not part.stream.read(1):
        raise BadRequest("The file is empty.", code="empty_file", param="file")
    part.stream.seek(0)
    return part


def _form() -> UploadForm:
    fields: dict[str, Any] = request.form.to_dict()
    if "schema" in fields:
        fields["schema"] = read_json(fields["schema"].encode(errors="surrogatepass"), param="schema")
    return parse(UploadForm, fields)


def base_name(sent: str) -> str:
    """The last part of what the sender calls the file, without what could harm a header or a terminal."""
    name = _CONTROL.sub("", re.split(r"[/\\]", sent)[-1]).strip()
    stem, dot, ending = name.rpartition(".")
    if len(name) > _LONGEST_NAME:
        name = stem[: _LONGEST_NAME - len(dot + ending)] + dot + ending
    return name[:_LONGEST_NAME] if name not in ("", ".", "..") else "upload"

"""Uploads in parts over HTTP: begun, filled, completed, cancelled. OpenAI's, and two ways to look at one."""

from typing import BinaryIO, cast

from api import requests, uploads
from api import upload_shapes as shapes
from api.completion import complete as join
from api.part_stream import PartStream
from api.routes import Routes, page_query
from api.services import Services
from api.shapes import page
from db import tables
from db import uploads as rows
from db.blobs import part_key
from domain.access import Principal, Scope
from domain.content_types import refuse_foreign
from domain.errors import PlaitError, TooLarge
from domain.ids import new_id
from domain.shapes import parse
from domain.uploads import PART_BYTES, Completion

routes = Routes()

#: Of parts, as many as the largest file has that is cut as the stock client cuts it.
_MOST_LISTED = 1000


@routes.post(
    "/v1/uploads",
    needs=Scope.FILES_WRITE,
    body=shapes.NewUpload,
    answer=shapes.Upload,
    errors=(400, 413, 415, 422, 429),
    takes_key=True,
)
def create(plait: Services, who: Principal) -> shapes.Upload:
    """Begins the upload of a large file; its parts follow, within a day."""
    body = requests.json_body()
    new = _row(plait.settings.max_file_bytes, who, parse(shapes.NewUpload, body))
    new.idempotency_key, new.body_hash = requests.idempotency_key(), requests.body_hash(body)
    with plait.change(who) as session:
        made = rows.create(session, new)
        return shapes.upload(rows.get(session, who.tenant, made.id))


def _row(most: int, who: Principal, asked: shapes.NewUpload) -> tables.Upload:
    if asked.bytes > most:
        message = f"A file may hold {most} bytes here; this one is said to hold {asked.bytes}."
        raise TooLarge(message, param="bytes")
    filename = uploads.base_name(asked.filename)
    refuse_foreign(asked.purpose, asked.mime_type, filename, param="mime_type")
    schema = asked.schema_.model_dump(mode="json", exclude_defaults=True) if asked.schema_ else None
    return tables.Upload(
        id=new_id("upload_"),
        tenant=who.tenant,
        filename=filename,
        purpose=asked.purpose,
        mime_type=asked.mime_type,
        bytes=asked.bytes,
        schema=schema,
        file_life_s=asked.expires_after.seconds if asked.expires_after else None,
    )


@routes.get("/v1/uploads/<upload_id>", needs=Scope.FILES_READ, answer=shapes.Upload, errors=(404,))
def retrieve(plait: Services, who: Principal, upload_id: str) -> shapes.Upload:
    """Tells how an upload stands: what has arrived, and the file that came of it."""
    with plait.database.reading() as session:
        return shapes.upload(rows.get(session, who.tenant, upload_id))


@routes.get(
    "/v1/uploads/<upload_id>/parts",
    needs=Scope.FILES_READ,
    query=page_query(most=_MOST_LISTED),
    answer=shapes.UploadPartPage,
    errors=(400, 404),
)
def parts(plait: Services, who: Principal, upload_id: str) -> shapes.UploadPartPage:
    """Lists the parts that have arrived, in that order; of an upload that is over there are none."""
    limit, after = requests.limit(most=_MOST_LISTED), requests.after()
    with plait.database.reading() as session:
        found, more = rows.parts_page(session, who.tenant, upload_id, after=after, limit=limit)
    return page(shapes.UploadPartPage, [shapes.part(row) for row in found], more)


@routes.post(
    "/v1/uploads/<upload_id>/parts",
    needs=Scope.FILES_WRITE,
    body=shapes.PartForm,
    is_form=True,
    answer=shapes.UploadPart,
    errors=(400, 404, 409, 413, 415),
)
def add(plait: Services, who: Principal, upload_id: str) -> shapes.UploadPart:
    """Adds a part of at most 64 MiB; several may be sent at once, and in any order."""
    with plait.database.reading() as session:
        rows.refuse_unless_open(session, who.tenant, upload_id)
    part_id, stream = new_id("part_"), PartStream("data", most=PART_BYTES)
    key = part_key(upload_id, part_id)
    stored = plait.blobs.write(key, cast(BinaryIO, stream))
    new = tables.UploadPart(id=part_id, upload=upload_id, bytes=stored.bytes, sha256=stored.sha256)
    try:
        with plait.change(who) as session:
            return shapes.part(rows.add_part(session, who.tenant, new))
    except PlaitError:
        plait.drop(key)
        raise


@routes.post(
    "/v1/uploads/<upload_id>/complete",
    needs=Scope.FILES_WRITE,
    body=shapes.Complete,
    answer=shapes.Upload,
    errors=(400, 404, 409, 413, 415, 422, 429),
    takes_key=True,
)
def complete(plait: Services, who: Principal, upload_id: str) -> shapes.Upload:
    """Makes a file of the named parts, in their order; parts that are not named go."""
    join(plait, who, upload_id, _completion())
    with plait.database.reading() as session:
        return shapes.upload(rows.get(session, who.tenant, upload_id))


def _completion() -> Completion:
    asked = parse(shapes.Complete, requests.json_body())
    told = asked.model_dump(mode="json")
    return Completion(
        part_ids=tuple(asked.part_ids),
        md5=asked.md5.lower() if asked.md5 else None,
        key=requests.idempotency_key(),
        body_hash=requests.body_hash(told),
    )


@routes.post(
    "/v1/uploads/<upload_id>/cancel", needs=Scope.FILES_WRITE, answer=shapes.Upload, errors=(404, 409)
)
def cancel(plait: Services, who: Principal, upload_id: str) -> shapes.Upload:
    """Gives an upload up; what has arrived goes."""
    with plait.change(who) as session:
        rows.cancel(session, who.tenant, upload_id)
        answer = shapes.upload(rows.get(session, who.tenant, upload_id))
    plait.drop_of(upload_id)
    return answer

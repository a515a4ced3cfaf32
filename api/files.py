"""Files over HTTP: uploaded, listed, read back, deleted. Bytes first, row second; never the other way round."""

from flask import Response, request

from api import downloads, requests, shapes, uploads
from api.routes import Parameter, Routes, page_query
from api.services import Services
from db import files, tables
from domain.access import Principal, Scope
from domain.errors import PlaitError
from domain.ids import new_id

routes = Routes()

#: OpenAI's default and most for this one list.
_MOST = 10_000
_LIST_QUERY = (
    *page_query(most=_MOST, default=_MOST),
    Parameter("purpose", "Only files of this purpose.", {"type": "string"}),
    Parameter(
        "order", "By the time of creation.", {"type": "string", "enum": ["asc", "desc"], "default": "desc"}
    ),
)


@routes.post(
    "/v1/files",
    needs=Scope.FILES_WRITE,
    body=uploads.UploadForm,
    is_form=True,
    answer=shapes.File,
    errors=(400, 413, 415, 422, 429),
    takes_key=True,
)
def create(plait: Services, who: Principal) -> shapes.File:
    """Uploads a file: a table, or a zip of media with its `metadata.jsonl`."""
    key, most = requests.idempotency_key(), plait.settings.max_upload_bytes
    upload, file_id = uploads.receive(most), new_id("file-")
    stored = plait.blobs.write(file_id, upload.stream, limit=most)
    file = tables.File(
        id=file_id,
        tenant=who.tenant,
        filename=upload.filename,
        purpose=upload.form.purpose,
        bytes=stored.bytes,
        sha256=stored.sha256,
        blob=file_id,
        schema=upload.schema,
        idempotency_key=key,
        body_hash=upload.body_hash(stored.sha256),
    )
    return _keep(plait, who, file)


def _keep(plait: Services, who: Principal, new: tables.File) -> shapes.File:
    """The row of bytes that are stored; they go again when it is refused, or when they were there already."""
    blob = new.blob
    try:
        with plait.change(who) as session:
            row = files.add(session, new)
            shape = shapes.file(row)
    except PlaitError:
        plait.drop(blob)
        raise
    if row.blob != blob:
        plait.drop(blob)
    return shape


@routes.get("/v1/files", needs=Scope.FILES_READ, query=_LIST_QUERY, answer=shapes.FilePage, errors=(400, 404))
def index(plait: Services, who: Principal) -> shapes.FilePage:
    """Lists the files, newest first unless asked otherwise."""
    limit, newest_first = requests.limit(_MOST, most=_MOST), requests.newest_first()
    after, purpose = requests.after(), request.args.get("purpose")
    with plait.database.reading() as session:
        rows, more = files.page(
            session, who.tenant, after=after, limit=limit, purpose=purpose, newest_first=newest_first
        )
    return shapes.page(shapes.FilePage, [shapes.file(row) for row in rows], more)


@routes.get("/v1/files/<file_id>", needs=Scope.FILES_READ, answer=shapes.File, errors=(404,))
def retrieve(plait: Services, who: Principal, file_id: str) -> shapes.File:
    """Describes one file."""
    with plait.database.reading() as session:
        return shapes.file(files.get(session, who.tenant, file_id))


@routes.delete("/v1/files/<file_id>", needs=Scope.FILES_WRITE, answer=shapes.FileDeleted, errors=(404, 409))
def delete(plait: Services, who: Principal, file_id: str) -> shapes.FileDeleted:
    """Deletes a file; refused while an unfinished job reads it."""
    with plait.change(who) as session:
        blob = files.delete(session, who.tenant, file_id)
    if blob is not None:
        plait.drop(blob)
    return shapes.FileDeleted(id=file_id)


@routes.get(
    "/v1/files/<file_id>/content",
    needs=Scope.FILES_READ,
    answer=None,
    errors=(404, 412, 416),
    statuses=(200, 206, 304, 307),
)
def content(plait: Services, who: Principal, file_id: str) -> Response:
    """Sends a file's bytes, or the range of them that is asked for; or tells where an object store has them."""
    with plait.database.reading() as session:
        file = files.get(session, who.tenant, file_id)
    return downloads.of_file(plait.blobs, file)

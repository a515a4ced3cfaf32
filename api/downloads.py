"""Bytes on their way out, whole or the range that is asked for. Nothing of them may run as a page of this server's."""

from flask import Response, request, send_file
from werkzeug.exceptions import HTTPException

from db.blobs import Blobs
from db.tables import File
from domain.errors import NotFound


def of_file(blobs: Blobs, file: File) -> Response:
    """A file's bytes, or the part of them that the header `Range` names."""
    try:
        size, stream = blobs.size(file.blob), blobs.read(file.blob)
    except FileNotFoundError:
        raise NotFound(f"The bytes of {file.id} are gone.", code="file_not_found", param="id") from None
    response = send_file(
        stream,
        mimetype="application/octet-stream",
        as_attachment=True,
        download_name=file.filename,
        conditional=False,
        etag=file.sha256,
        last_modified=file.created_at,
    )
    response.content_length = size
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    try:
        response.make_conditional(request, accept_ranges=True, complete_length=size)
    except HTTPException:
        stream.close()
        raise
    return response

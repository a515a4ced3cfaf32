"""Bytes on their way out, whole or the range that is asked for. Nothing of them may run as a page of this server's."""

from flask import Response, request, send_file
from werkzeug.exceptions import HTTPException

from api.routes import refuse_other_than
from db.blobs import Blobs
from db.tables import File
from domain.errors import NotFound

#: Seconds in which a download from an object store must begin; once begun it may take longer.
LINK_S = 600
_SANDBOX = "sandbox; default-src 'none'"


def of_file(blobs: Blobs, file: File) -> Response:
    """A file's bytes, or the part of them that the header `Range` names; or the address where anybody may
    fetch them for a while. A copy that the caller has already is neither sent nor fetched again."""
    refuse_other_than(file.sha256)
    try:
        # Asked for in any case: whoever is sent to an object store finds it there, and the bytes in it.
        stream = blobs.read(file.blob)
    except FileNotFoundError:
        raise NotFound(f"The bytes of {file.id} are gone.", code="file_not_found", param="id") from None
    is_wanted = request.method == "GET" and not request.if_none_match.contains(file.sha256)
    if is_wanted and (link := blobs.link(file.blob, file.filename, LINK_S)):
        stream.close()
        return _elsewhere(link)
    response = send_file(
        stream,
        mimetype="application/octet-stream",
        as_attachment=True,
        download_name=file.filename,
        conditional=False,
        etag=file.sha256,
        last_modified=file.created_at,
    )
    response.content_length = file.bytes
    response.headers["Content-Security-Policy"] = _SANDBOX
    try:
        response.make_conditional(request, accept_ranges=True, complete_length=file.bytes)
    except HTTPException:
        stream.close()
        raise
    return response


def _elsewhere(link: str) -> Response:
    """The link is a key to these bytes: nobody may keep it."""
    headers = {"Location": link, "Cache-Control": "no-store", "Content-Security-Policy": _SANDBOX}
    return Response(status=307, headers=headers, content_type="application/octet-stream")

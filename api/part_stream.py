"""The one part of a form as it arrives, read by whoever stores it: no byte of it is kept here."""

from collections.abc import Iterator

from flask import request
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from domain.errors import BadRequest, TooLarge, UnsupportedMedia

_CHUNK = 256 * 1024
#: What the decoder may hold: a chunk, and what stands before a part's bytes.
_MOST_HELD = 4 * _CHUNK


class PartStream:
    """The bytes of the field `name`, at most `most`; a form of anything else is refused while it is read."""

    def __init__(self, name: str, *, most: int) -> None:
        if request.mimetype != "multipart/form-data":
            raise UnsupportedMedia(f"Send the bytes as multipart/form-data, in a part named `{name}`.")
        request.max_content_length = most + _MOST_HELD
        self._name, self._most, self._size = name, most, 0
        boundary = request.mimetype_params.get("boundary", "")
        self._events = self._read(boundary)

    def read(self, _size: int = -1) -> bytes:
        """The next bytes, however many have come; none at the end of a whole form."""
        return next(self._events, b"")

    def _read(self, boundary: str) -> Iterator[bytes]:
        found = 0
        try:
            decoder = MultipartDecoder(boundary.encode("ascii"), _MOST_HELD)
            while not isinstance(event := decoder.next_event(), Epilogue):
                if isinstance(event, NeedData):
                    decoder.receive_data(request.stream.read(_CHUNK) or None)
                elif isinstance(event, (Field, File)):
                    found += 1
                    self._refuse_other(event.name, found)
                elif isinstance(event, Data) and event.data:
                    yield self._counted(bytes(event.data))
        except ValueError:
            raise BadRequest("The form does not arrive as its headers say.", code="broken_body") from None
        if not self._size:
            raise BadRequest(f"Send bytes in a part named `{self._name}`; there are none.", code="empty_part")

    def _refuse_other(self, name: str, found: int) -> None:
        if name != self._name or found > 1:
            message = f"Send exactly one part, named `{self._name}`."
            raise BadRequest(message, code="invalid_form", param=self._name)

    def _counted(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > self._most:
            raise TooLarge(f"A part holds at most {self._most} bytes; send smaller ones.", param=self._name)
        return data

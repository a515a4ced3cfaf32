"""Reads a form part by part as it arrives: little of it is ever in memory, and one file is open at a time."""

import io
from hashlib import sha256
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from flask import request
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from domain.errors import BadRequest, TooLarge

_CHUNK = 64 * 1024
#: What stands before a part's bytes: its headers.
_LONGEST_HEAD = 256 * 1024


class Media(Protocol):
    """Bytes that are here already, wherever they lie."""

    @property
    def bytes(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    def open(self) -> BinaryIO: ...


class Held:
    """Media in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def bytes(self) -> int:
        return len(self._data)

    @property
    def sha256(self) -> str:
        return sha256(self._data).hexdigest()

    def open(self) -> BinaryIO:
        return io.BytesIO(self._data)


class Part:
    """One part of a form, in memory while it is small, else in a file; hashed as it comes."""

    def __init__(self, name: str, *, is_file: bool, path: Path, memory: int) -> None:
        self.name, self.is_file, self.bytes = name, is_file, 0
        self._path, self._memory = path, memory
        self._stream: IO[bytes] = io.BytesIO()
        self._digest = sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        self.bytes += len(data)
        if self.bytes > self._memory and isinstance(self._stream, io.BytesIO):
            early, self._stream = self._stream.getvalue(), self._path.open("wb")
            self._stream.write(early)
        self._digest.update(data)
        self._stream.write(data)

    def end(self) -> int:
        """No more is written. Returns the bytes that stay in memory."""
        if isinstance(self._stream, io.BytesIO):
            return self.bytes
        self._stream.close()
        return 0

    def open(self) -> BinaryIO:
        return (
            io.BytesIO(self._stream.getvalue())
            if isinstance(self._stream, io.BytesIO)
            else self._path.open("rb")
        )

    def text(self, most: int) -> str:
        """The whole part as text, of at most `most` bytes."""
        if self.bytes > most:
            raise TooLarge(f"The part '{self.name[:100]}' is larger than {most} bytes; send media as files.")
        with self.open() as stream:
            data = stream.read()
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            message = f"The part '{self.name[:100]}' is not text; send media as a part with a file name."
            raise BadRequest(message, code="invalid_text", param=self.name[:100])
        return text


def read_parts(folder: Path, *, most: int, memory: int, each: int) -> list[Part]:
    """The parts of the request's form, at most `most`.

    A part of at most `each` bytes stays in memory while `memory` bytes last; all others lie in `folder`.
    """
    boundary = request.mimetype_params.get("boundary", "")
    found: list[Part] = []
    try:
        decoder = MultipartDecoder(boundary.encode("ascii"), _LONGEST_HEAD, max_parts=most)
        while not isinstance(event := decoder.next_event(), Epilogue):
            if isinstance(event, NeedData):
                decoder.receive_data(request.stream.read(_CHUNK) or None)
            elif isinstance(event, (Field, File)):
                path, is_file = folder / str(len(found)), isinstance(event, File)
                found.append(Part(event.name, is_file=is_file, path=path, memory=min(each, memory)))
            elif isinstance(event, Data):
                found[-1].write(event.data)
                if not event.more_data:
                    memory -= found[-1].end()
    except ValueError:
        raise BadRequest("The form does not arrive as its headers say.", code="broken_body") from None
    finally:
        for part in found:
            part.end()
    return found

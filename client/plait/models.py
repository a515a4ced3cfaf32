"""Models on the server: families to start from, and what fine-tuning made."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plait import paging, unpacking
from plait.errors import LocalFileError
from plait.slices import Progress
from plait.transport import Transport

_PATH = "/models"


@dataclass(frozen=True, slots=True)
class Model:
    id: str
    created: int | None
    owned_by: str | None
    #: The server's whole answer.
    raw: dict[str, Any] = field(repr=False)

    @property
    def is_family(self) -> bool:
        """Whether this is a family that a job starts from, and no model that one made."""
        return not self.id.startswith("ft:")

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Model":
        return cls(id=raw["id"], created=raw.get("created"), owned_by=raw.get("owned_by"), raw=raw)


class Models:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Model]:
        """All of them: this list has no pages."""
        return map(Model.of, self._transport.get(_PATH).get("data") or ())

    def get(self, model_id: str) -> Model:
        return Model.of(self._transport.get(_path(model_id)))

    def delete(self, model_id: str) -> None:
        """Deletes a fine-tuned model and its weights, for good."""
        self._transport.delete(_path(model_id))

    def download(
        self, model_id: str, to_folder: str | os.PathLike[str], *, on_progress: Progress | None = None
    ) -> Path:
        """Writes a fine-tuned model as a folder in Hugging Face's form: config.json, model.safetensors, README.md.

        The folder appears when it is whole. One that is there already must be empty.
        """
        target = Path(to_folder).absolute()
        unpacking.refuse_occupied(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Beside the target: a finished folder is renamed, which does not work across disks.
            with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
                packed = Path(folder) / "model.zip"
                self._fetch(model_id, packed, on_progress)
                unpacking.unpack(packed, Path(folder) / "model")
                unpacking.move_in(Path(folder) / "model", target)
        except OSError as error:
            raise LocalFileError(f"{target} cannot be written: {error.strerror or error}.") from None
        return target

    def _fetch(self, model_id: str, packed: Path, on_progress: Progress | None) -> None:
        with (
            self._transport.chunks(f"{_path(model_id)}/download") as (size, chunks),
            packed.open("xb") as out,
        ):
            for chunk in chunks:
                out.write(chunk)
                if on_progress:
                    on_progress(out.tell(), size or 0)


def _path(model_id: str) -> str:
    return paging.one(_PATH, model_id, slashes=True)

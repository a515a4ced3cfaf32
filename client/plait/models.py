"""Models on the server: families to start from, and what fine-tuning made."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from plait import paging
from plait.transport import Transport

_PATH = "/models"


@dataclass(frozen=True, slots=True)
class Model:
    id: str
    created: int | None
    owned_by: str | None
    #: The server's whole answer.
    raw: dict[str, Any] = field(repr=False)

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
        return Model.of(self._transport.get(paging.one(_PATH, model_id, slashes=True)))

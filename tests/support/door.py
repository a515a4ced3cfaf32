"""The web application in the test's own process, with a caller's key and bells that remember."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from db import tenants
from db.session import Database
from domain.access import ALL_SCOPES, Scope
from domain.job import Lane
from settings import Settings

JSONL = b'{"caption": "a cat", "label": "cat"}\n'


@dataclass
class RecordedBells:
    """Stands in for `bus.bells.Bells`: nobody listens, but who was rung is kept."""

    rung: list[str] = field(default_factory=list)
    poked: list[str | None] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)
    is_ready: bool = True

    def ring(self, lane: Lane) -> None:
        self.rung.append(lane)

    def poke(self, worker: str | None) -> None:
        self.poked.append(worker)

    def wake(self, job_id: str) -> None:
        self.woken.append(job_id)

    def ready(self) -> bool:
        return self.is_ready


class Door:
    """Sends requests as one tenant; `as_tenant` gives another's door to the same application."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings, self.bells = database, settings, RecordedBells()
        self.app = create_app(settings, database, self.bells)
        self.client: FlaskClient = self.app.test_client()
        self.key = self.new_key("a")

    def new_key(self, tenant: str, scopes: frozenset[Scope] = ALL_SCOPES, **more: Any) -> str:
        with self.database.transaction() as session:
            tenants.ensure(session, tenant)
            return tenants.create_key(session, tenant, name="test", scopes=scopes, **more)[1]

    def send(
        self, method: str, path: str, *, key: str | None = None, headers: Any = None, **more: Any
    ) -> TestResponse:
        all_headers = {"Authorization": f"Bearer {key or self.key}", **(headers or {})}
        return self.client.open(path, method=method, headers=all_headers, buffered=True, **more)

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.send("GET", path, **more)

    def upload(
        self,
        content: bytes = JSONL,
        *,
        name: str = "train.jsonl",
        fields: dict[str, str] | None = None,
        **more: Any,
    ) -> TestResponse:
        form = {"purpose": "fine-tune", **(fields or {}), "file": (io.BytesIO(content), name)}
        return self.send("POST", "/v1/files", data=form, content_type="multipart/form-data", **more)

    def file(self, **more: Any) -> str:
        """The id of a fresh file."""
        answer = self.upload(**more)
        assert answer.status_code == 200, answer.text
        return str(answer.json["id"])  # type: ignore[index]

    def submit(self, body: dict[str, Any] | None = None, **more: Any) -> TestResponse:
        """Creates a job; fields that `body` does not give are those of a good one."""
        good = {"model": "late-fusion"} | ({} if body and "training_file" in body else self._good_file(more))
        return self.send("POST", "/v1/fine_tuning/jobs", json={**good, **(body or {})}, **more)

    def _good_file(self, more: dict[str, Any]) -> dict[str, str]:
        return {"training_file": self.file(key=more.get("key"))}

    def blobs(self) -> list[Path]:
        """What lies in the blob store."""
        return [p for p in (self.settings.data / "blobs").rglob("*") if p.is_file()]

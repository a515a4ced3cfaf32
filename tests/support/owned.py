"""Objects of a tenant's, by the words that addresses and bodies have for them. Whoever adds a route whose address
names a new kind of object adds its maker here; a body that must be there stands in GOOD, a state in READY.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from sqlalchemy import select
from werkzeug.test import TestResponse

from api.app import GROUPS
from api.routes import Route
from db import deliveries, events
from db.tables import Checkpoint, Table
from support.door import JSONL, Door
from support.predictions import predict, registered

ROUTES: tuple[Route, ...] = tuple(chain(*GROUPS))
WITH_KEY = tuple(route for route in ROUTES if route.needs is not None)
Ids = Mapping[str, str]
#: An address of the open internet, so that nothing is looked up; no test sends anything there.
PUBLIC_URL = "https://8.8.8.8/"
Sent = dict[str, Any]


class Owner:
    """One tenant at the door."""

    def __init__(self, door: Door, tenant: str) -> None:
        self.door, self.tenant, self.key = door, tenant, door.new_key(tenant)
        self._made: dict[tuple[str, str], str] = {}

    def send(self, method: str, path: str, **more: Any) -> TestResponse:
        return self.door.send(method, path, key=self.key, **more)

    def make(self, word: str, ids: Ids | None = None) -> str:
        """The id of a fresh object; `ids` are those that stand before it in the same address."""
        return MAKERS[word](self, ids or {})

    def has(self, word: str, ids: Ids | None = None) -> str:
        """The id of an object that is made once."""
        place = (word, str(sorted((ids or {}).items())))
        if place not in self._made:
            self._made[place] = self.make(word, ids)
        return self._made[place]

    def good(self, route: Route, ids: Ids) -> Sent:
        """What a request about the owner's own objects carries."""
        return GOOD[route.name](self, ids) if route.name in GOOD else {}

    def ask(self, route: Route, ids: Ids, **sent: Any) -> TestResponse:
        return self.send(route.method, address(route, ids), **sent)


def address(route: Route, ids: Ids) -> str:
    """The route's address with these ids in it."""
    path = route.rule
    for name in route.parameters:
        path = path.replace(f"<{name}>", ids[name]).replace(f"<path:{name}>", ids[name])
    return path


def _id(answer: TestResponse) -> str:
    assert answer.status_code < 300, answer.text
    return str((answer.json or {})["id"])


def _job(owner: Owner, _: Ids) -> str:
    return _id(owner.door.submit(key=owner.key))


def _prediction(owner: Owner, _: Ids) -> str:
    model = registered(owner.door.database, owner.tenant)
    return _id(predict(owner.door, {"model": model, "inputs": [{"text": "x"}]}, key=owner.key))


_UPLOAD = {
    "purpose": "fine-tune",
    "bytes": len(JSONL),
    "filename": "a.jsonl",
    "mime_type": "application/jsonl",
}


def _upload(owner: Owner, _: Ids) -> str:
    return _id(owner.send("POST", "/v1/uploads", json=_UPLOAD))


def _part(owner: Owner, ids: Ids) -> str:
    form = {"data": (io.BytesIO(JSONL), "part")}
    return _id(owner.send("POST", f"/v1/uploads/{ids['upload_id']}/parts", data=form))


def _event(owner: Owner, ids: Ids) -> str:
    return events.event_id(ids["job_id"], 1)


def _checkpoint(owner: Owner, ids: Ids) -> str:
    job = ids.get("job_id") or owner.has("job_id")
    made = f"ftckpt_{owner.tenant}{job[-20:]}"
    row = {"job": job, "fence": 1, "step": 1, "ref": "none", "metrics": {}}
    with owner.door.database.transaction() as session:
        session.merge(Checkpoint(id=made, **row))
    return made


def _audit_event(owner: Owner, _: Ids) -> str:
    owner.make("file_id")
    return str((owner.send("GET", "/v1/audit_events").json or {})["first_id"])


def _endpoint(owner: Owner, _: Ids) -> str:
    """One tenant may have only so many: those of earlier makers go."""
    for old in (owner.send("GET", "/v1/webhook_endpoints?limit=100").json or {})["data"][10:]:
        owner.send("DELETE", f"/v1/webhook_endpoints/{old['id']}")
    return _id(owner.send("POST", "/v1/webhook_endpoints", json={"url": PUBLIC_URL}))


def _delivery(owner: Owner, ids: Ids) -> str:
    with owner.door.database.transaction() as session:
        return deliveries.sample(session, owner.tenant, ids["endpoint_id"], "check.failed").id


#: How an object comes to be, by the word for its id.
MAKERS: dict[str, Callable[[Owner, Ids], str]] = {
    "file_id": lambda owner, _: owner.door.file(key=owner.key),
    "job_id": _job,
    "prediction_id": _prediction,
    "model": lambda owner, _: registered(owner.door.database, owner.tenant),
    "key_id": lambda owner, _: _id(owner.send("POST", "/v1/api_keys", json={"name": "made"})),
    "upload_id": _upload,
    "part_id": _part,
    "event_id": _event,
    "checkpoint_id": _checkpoint,
    "audit_event_id": _audit_event,
    "endpoint_id": _endpoint,
    "delivery_id": _delivery,
}

#: What a request of this route carries, where it must carry something.
GOOD: dict[str, Callable[[Owner, Ids], Sent]] = {
    "files.create": lambda *_: {"data": {"purpose": "fine-tune", "file": (io.BytesIO(JSONL), "a.jsonl")}},
    "uploads_in_parts.create": lambda *_: {"json": _UPLOAD},
    "uploads_in_parts.add": lambda *_: {"data": {"data": (io.BytesIO(JSONL), "part")}},
    "uploads_in_parts.complete": lambda owner, ids: {"json": {"part_ids": [owner.has("part_id", ids)]}},
    "fine_tuning.create": lambda owner, _: {
        "json": {"model": "late-fusion", "training_file": owner.has("file_id")}
    },
    "predictions.create": lambda owner, _: {
        "json": {"model": owner.has("model"), "inputs": [{"text": "x"}], "background": True}
    },
    "checks.validate": lambda *_: {"headers": {"Prefer": "wait=0"}},
    "api_keys.create": lambda *_: {"json": {"name": "new"}},
    "webhooks.create": lambda *_: {"json": {"url": PUBLIC_URL}},
    "webhooks.update": lambda *_: {"json": {"name": "new"}},
    "webhooks.test": lambda *_: {"headers": {"Prefer": "wait=0"}},
}


def _paused(owner: Owner, ids: Ids) -> None:
    assert owner.send("POST", f"/v1/jobs/{ids['job_id']}/pause").status_code == 200


#: What must be so of an object before the route can change it.
READY: dict[str, Callable[[Owner, Ids], None]] = {
    "fine_tuning.resume": _paused,
    "jobs.resume": _paused,
}

#: What `after` of a list names.
AFTER = {
    "files.index": "file_id",
    "fine_tuning.index": "job_id",
    "jobs.index": "job_id",
    "predictions.index": "prediction_id",
    "events.list_events": "event_id",
    "training.list_checkpoints": "checkpoint_id",
    "api_keys.index": "key_id",
    "audit_events.index": "audit_event_id",
    "uploads_in_parts.parts": "part_id",
    "webhooks.index": "endpoint_id",
    "deliveries.index": "delivery_id",
}

#: Fields of bodies that name an object of the tenant's, by route and path.
NAMED = {
    ("fine_tuning.create", "model"): "model",
    ("fine_tuning.create", "training_file"): "file_id",
    ("fine_tuning.create", "validation_file"): "file_id",
    ("fine_tuning.create", "multimodal.test_file"): "file_id",
    ("fine_tuning.create", "resume_from_checkpoint"): "checkpoint_id",
    ("predictions.create", "model"): "model",
    ("uploads_in_parts.complete", "part_ids"): "part_id",
}

#: Fields that look as if they did, and why they do not, or where they are tested.
NOT_NAMED = {
    ("files.create", "file"): "the upload itself",
    ("files.create", "schema.id"): "a column's name",
    ("uploads_in_parts.create", "schema.id"): "a column's name",
    ("fine_tuning.create", "multimodal.schema.id"): "a column's name",
    ("checks.validate", "multimodal.schema.id"): "a column's name",
    ("checks.validate", "multimodal.test_file"): "a check reads the file of its address alone",
    ("fine_tuning.create", "multimodal.language_model"): "what a language model is and how it is trained",
    ("fine_tuning.create", "multimodal.language_model.model"): "an encoder's name on the Hub",
    ("checks.validate", "multimodal.language_model"): "what a language model is and how it is trained",
    ("checks.validate", "multimodal.language_model.model"): "an encoder's name on the Hub",
    ("predictions.create", "inputs[].id"): "the caller's own name for a row",
    ("predictions.create", "inputs[].*.file_id"): "a cell is refused in its row: a test of its own",
    (
        "predictions.create",
        "inputs[].*[].file_id",
    ): "one of several in a cell, refused in its row by the same test",
}


def fields(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The paths of all fields of a body, `[]` for a list's items and `*` for any name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        known = {k: v for k, v in definitions.items() if k != name}
        if name in definitions:
            yield from fields(definitions[name], known, path)
    for inner in chain(*(schema.get(word, ()) for word in ("anyOf", "allOf", "oneOf"))):
        yield from fields(inner, definitions, path)
    for word, mark in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(schema.get(word), dict):
            yield from fields(schema[word], definitions, path + mark)
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}".strip(".")
        yield here
        yield from fields(inner, definitions, here)


def with_field(body: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The body with `value` at `a.b`, as the only item where there is a list."""
    name, _, rest = path.partition(".")
    if isinstance(body.get(name), list):
        return {**body, name: [value]}
    return {**body, name: with_field(body.get(name, {}), rest, value) if rest else value}


def everything(door: Door) -> dict[str, Any]:
    """Each row of each table, but when a key was last used; and each file's bytes by their hash."""
    kept: dict[str, Any] = {}
    with door.database.reading() as session:
        for table in Table.metadata.sorted_tables:
            columns = [column for column in table.columns if column.name != "last_used_at"]
            kept[table.name] = sorted(map(repr, session.execute(select(*columns))))
    for path in door.blobs():
        kept[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return kept


def never(id_: str) -> str:
    """An id of the same kind that never was."""
    return id_[:-6] + "zzzzzz"

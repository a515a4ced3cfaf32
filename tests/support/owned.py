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
from db import events
from db.tables import Checkpoint, Table
from support.door import JSONL, Door
from support.predictions import predict, registered

ROUTES: tuple[Route, ...] = tuple(chain(*GROUPS))
WITH_KEY = tuple(route for route in ROUTES if route.needs is not None)
Ids = Mapping[str, str]
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

    def ask(self, route: Route, ids: Ids, **more: Any) -> TestResponse:
        """A request that nothing is wrong with but, perhaps, whose `ids` they are."""
        sent = {**GOOD.get(route.name, _nothing)(self), **more}
        return self.send(route.method, address(route, ids), **sent)


def address(route: Route, ids: Ids) -> str:
    """The route's address with these ids in it."""
    path = route.rule
    for name in route.parameters:
        path = path.replace(f"<{name}>", ids[name]).replace(f"<path:{name}>", ids[name])
    return path


def _nothing(_: Owner) -> Sent:
    return {}


def _id(answer: TestResponse) -> str:
    assert answer.status_code < 300, answer.text
    return str((answer.json or {})["id"])


def _job(owner: Owner, _: Ids) -> str:
    return _id(owner.door.submit(key=owner.key))


def _prediction(owner: Owner, _: Ids) -> str:
    model = registered(owner.door.database, owner.tenant)
    return _id(predict(owner.door, {"model": model, "inputs": [{"text": "x"}]}, key=owner.key))


def _event(owner: Owner, ids: Ids) -> str:
    return events.event_id(ids["job_id"], 1)


def _checkpoint(owner: Owner, ids: Ids) -> str:
    made = f"ftckpt_{owner.tenant}{ids['job_id'][-20:]}"
    row = {"job": ids["job_id"], "fence": 1, "step": 1, "ref": "none", "metrics": {}}
    with owner.door.database.transaction() as session:
        session.add(Checkpoint(id=made, **row))
    return made


def _audit_event(owner: Owner, _: Ids) -> str:
    owner.make("file_id")
    return str((owner.send("GET", "/v1/audit_events").json or {})["first_id"])


#: How an object comes to be, by the word for its id.
MAKERS: dict[str, Callable[[Owner, Ids], str]] = {
    "file_id": lambda owner, _: owner.door.file(key=owner.key),
    "job_id": _job,
    "prediction_id": _prediction,
    "model": lambda owner, _: registered(owner.door.database, owner.tenant),
    "key_id": lambda owner, _: _id(owner.send("POST", "/v1/api_keys", json={"name": "made"})),
    "event_id": _event,
    "checkpoint_id": _checkpoint,
    "audit_event_id": _audit_event,
}

#: What a request of this route carries, where it must carry something.
GOOD: dict[str, Callable[[Owner], Sent]] = {
    "files.create": lambda _: {"data": {"purpose": "fine-tune", "file": (io.BytesIO(JSONL), "a.jsonl")}},
    "fine_tuning.create": lambda owner: {
        "json": {"model": "late-fusion", "training_file": owner.has("file_id")}
    },
    "predictions.create": lambda owner: {
        "json": {"model": owner.has("model"), "inputs": [{"text": "x"}], "background": True}
    },
    "checks.validate": lambda _: {"headers": {"Prefer": "wait=0"}},
    "api_keys.create": lambda _: {"json": {"name": "new"}},
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
}

#: Fields of bodies that name an object of the tenant's, by route and path.
NAMED = {
    ("fine_tuning.create", "model"): "model",
    ("fine_tuning.create", "training_file"): "file_id",
    ("fine_tuning.create", "validation_file"): "file_id",
    ("fine_tuning.create", "multimodal.test_file"): "file_id",
    ("predictions.create", "model"): "model",
}

#: Fields that look as if they did, and why they do not, or where they are tested.
NOT_NAMED = {
    ("files.create", "file"): "the upload itself",
    ("files.create", "schema.id"): "a column's name",
    ("fine_tuning.create", "multimodal.schema.id"): "a column's name",
    ("checks.validate", "multimodal.schema.id"): "a column's name",
    ("checks.validate", "multimodal.test_file"): "a check reads the file of its address alone",
    ("predictions.create", "inputs[].id"): "the caller's own name for a row",
    ("predictions.create", "inputs[].*.file_id"): "a cell is refused in its row: a test of its own",
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
    """The body with `value` at `a.b` (or as the only item at `a[]`)."""
    name, _, rest = path.partition(".")
    if name.endswith("[]"):
        return {**body, name[:-2]: [value]}
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

"""Keys over HTTP, for who has no shell on the server: made, listed, rotated, revoked. Secrets are shown once."""

import time
from typing import Any, Literal

from pydantic import Field

from api import requests
from api.routes import Routes, page_query
from api.services import Services
from api.shapes import Listed, Page, Shape, page
from db import audit, tables, tenants
from domain.access import NewKey, Principal, Rotation, Scope
from domain.shapes import parse

routes = Routes()


class ApiKey(Listed):
    object: Literal["api_key"] = "api_key"
    name: str
    #: The last characters of the key: enough to tell it from others.
    last4: str
    scopes: list[str]
    #: `rotated`: another key took its place, and it works until `expires_at`.
    state: Literal["live", "rotated", "expired", "revoked"]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    #: Right to a minute.
    last_used_at: int | None


class MadeApiKey(ApiKey):
    """A key that was just made; `api_key` is it, and is never shown again."""

    api_key: str = Field(repr=False)


class ApiKeyPage(Page[ApiKey]):
    """Keys of the tenant."""


class ApiKeyRevoked(Shape):
    id: str
    object: Literal["api_key"] = "api_key"
    deleted: Literal[True] = True


@routes.get("/v1/api_keys", needs=Scope.KEYS_WRITE, query=page_query(), answer=ApiKeyPage, errors=(400, 404))
def index(plait: Services, who: Principal) -> ApiKeyPage:
    """Lists the tenant's keys, newest first, those that are over as well."""
    limit = requests.limit()
    with plait.database.reading() as session:
        rows, more = tenants.page_of_keys(session, who.tenant, after=requests.after(), limit=limit)
    return page(ApiKeyPage, [ApiKey(**_fields(row)) for row in rows], more)


@routes.post("/v1/api_keys", needs=Scope.KEYS_WRITE, body=NewKey, answer=MadeApiKey, errors=(400, 413, 415))
def create(plait: Services, who: Principal) -> MadeApiKey:
    """Makes a key for the caller's tenant, with no more scopes than the caller's key has. It is shown once."""
    asked = parse(NewKey, requests.json_body())
    scopes = who.usual() if asked.scopes is None else frozenset(asked.scopes)
    who.may_give(scopes)
    with plait.change(who) as session:
        row, secret = tenants.create_key(
            session, who.tenant, name=asked.name, scopes=scopes, expires_in_s=asked.expires_in_s
        )
        audit.made(session, row.id)
        return _made(row, secret)


@routes.post(
    "/v1/api_keys/<key_id>/rotate",
    needs=Scope.KEYS_WRITE,
    body=Rotation,
    body_is_optional=True,
    answer=MadeApiKey,
    errors=(400, 404, 409, 413, 415),
)
def rotate(plait: Services, who: Principal, key_id: str) -> MadeApiKey:
    """Makes a key in another's place; the old one goes on working for `grace_s` seconds, a day unless told."""
    asked = parse(Rotation, requests.optional_json_body())
    with plait.change(who) as session:
        old = tenants.get_key(session, key_id, who.tenant)
        who.may_give(old.scopes)
        made = _made(*tenants.rotate(session, old, asked.grace_s))
    plait.keyring.forget()
    return made


@routes.delete("/v1/api_keys/<key_id>", needs=Scope.KEYS_WRITE, answer=ApiKeyRevoked, errors=(404,))
def revoke(plait: Services, who: Principal, key_id: str) -> ApiKeyRevoked:
    """Closes a key for ever, within a second on every server; it stays in the list."""
    with plait.change(who) as session:
        tenants.revoke(session, key_id, who.tenant)
    plait.keyring.forget()
    return ApiKeyRevoked(id=key_id)


def _made(row: tables.ApiKey, secret: str) -> MadeApiKey:
    return MadeApiKey(api_key=secret, **_fields(row))


def _fields(row: tables.ApiKey) -> dict[str, Any]:
    instants = {name: getattr(row, name) for name in ("expires_at", "revoked_at", "last_used_at")}
    return {
        "id": row.id,
        "name": row.name,
        "last4": row.last4,
        "scopes": row.scopes,
        # The word is for people: this process's clock is good enough for it.
        "state": tenants.state_of(row, time.time()),
        "created_at": int(row.created_at),
        **{name: int(instant) if instant is not None else None for name, instant in instants.items()},
    }

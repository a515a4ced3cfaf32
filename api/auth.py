"""Who calls: the bearer key of a request, looked up. Knows no passwords and no sessions."""

from flask import request

from db import tenants
from db.session import Database
from domain.access import Principal, Scope
from domain.errors import Unauthorized


def principal(database: Database, scope: Scope) -> Principal:
    """The caller, whose key is live and carries `scope`."""
    secret = _bearer(request.headers.get("Authorization", ""))
    with database.reading() as session:
        who = tenants.authenticate(session, secret)
    who.needs(scope)
    return who


def _bearer(header: str) -> str:
    scheme, _, secret = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorized("No API key was sent; send the header `Authorization: Bearer plait-...`.")
    return secret.strip()

"""What a change leaves in the audit: the key, the route, the object, and where the request came from."""

from flask import g, request
from sqlalchemy.orm import Session

from api.routes import Route
from api.trace import request_id
from db import audit
from domain.access import Principal


def write(session: Session, who: Principal) -> None:
    """The row of the change that the request in hand is about to commit.

    Nothing is written for a request that made nothing because an earlier one with the same key had.
    """
    route: Route = g.route
    made = audit.made_in(session)
    if route.takes_key and made is None:
        return
    audit.write(session, object_id=made or _named(route), **entry(who))


def entry(who: Principal) -> dict[str, str | None]:
    """The row of the request in hand, but for the object that it is about."""
    route: Route = g.route
    return {
        "tenant": who.tenant,
        "key": who.key_id,
        "action": route.name,
        "request_id": request_id(),
        "address": request.remote_addr,
    }


def _named(route: Route) -> str | None:
    """The object that the address names: its last parameter."""
    path = request.view_args or {}
    return path[route.parameters[-1]] if route.parameters else None

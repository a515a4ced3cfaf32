"""The audit over HTTP: which key changed what of the tenant's, and when."""

from typing import Literal

from api import requests
from api.routes import Routes, page_query
from api.services import Services
from api.shapes import Listed, Page, page
from db import audit, tables
from domain.access import Principal, Scope

routes = Routes()


class AuditEvent(Listed):
    object: Literal["audit_event"] = "audit_event"
    created_at: int
    #: The operation of this document that was asked for.
    action: str
    #: What was made or changed.
    object_id: str | None
    #: The id of the key that asked.
    key: str
    request_id: str
    #: Where the request came from, as the server saw it.
    address: str | None


class AuditEventPage(Page[AuditEvent]):
    """Audit events of the tenant."""


@routes.get(
    "/v1/audit_events",
    needs=Scope.AUDIT_READ,
    query=page_query(),
    answer=AuditEventPage,
    errors=(400, 404),
)
def index(plait: Services, who: Principal) -> AuditEventPage:
    """Lists what the tenant's keys changed, newest first."""
    limit = requests.limit()
    with plait.database.reading() as session:
        rows, more = audit.page(session, who.tenant, after=requests.after(), limit=limit)
    return page(AuditEventPage, [_event(row) for row in rows], more)


def _event(row: tables.Audit) -> AuditEvent:
    return AuditEvent(
        id=row.id,
        created_at=int(row.created_at),
        action=row.action,
        object_id=row.object_id,
        key=row.key,
        request_id=row.request_id,
        address=row.address,
    )

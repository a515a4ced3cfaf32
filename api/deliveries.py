"""The log of webhooks over HTTP: what was sent to an endpoint, each try, and sending it again."""

from api import requests
from api.routes import Parameter, Routes, page_query
from api.services import Services
from api.shapes import page
from api.webhook_shapes import (
    WebhookDelivery,
    WebhookDeliveryDetail,
    WebhookDeliveryPage,
    delivery,
    delivery_detail,
)
from db import deliveries
from domain.access import Principal, Scope
from domain.webhooks import DeliveryState

routes = Routes()

_BY_STATUS = Parameter(
    "status", "Only messages with this status.", {"type": "string", "enum": list(DeliveryState)}
)


@routes.get(
    "/v1/webhook_endpoints/<endpoint_id>/deliveries",
    needs=Scope.WEBHOOKS_READ,
    query=(*page_query(), _BY_STATUS),
    answer=WebhookDeliveryPage,
    errors=(400, 404),
)
def index(plait: Services, who: Principal, endpoint_id: str) -> WebhookDeliveryPage:
    """Lists an endpoint's messages, newest first."""
    status, after, limit = requests.one_of("status", list(DeliveryState)), requests.after(), requests.limit()
    with plait.database.reading() as session:
        rows, more = deliveries.page(session, who.tenant, endpoint_id, state=status, after=after, limit=limit)
    return page(WebhookDeliveryPage, [delivery(row) for row in rows], more)


@routes.get(
    "/v1/webhook_endpoints/<endpoint_id>/deliveries/<delivery_id>",
    needs=Scope.WEBHOOKS_READ,
    answer=WebhookDeliveryDetail,
    errors=(404,),
)
def retrieve(plait: Services, who: Principal, endpoint_id: str, delivery_id: str) -> WebhookDeliveryDetail:
    """Shows one message: what was sent, and each try."""
    with plait.database.reading() as session:
        row = deliveries.get(session, who.tenant, endpoint_id, delivery_id)
        return delivery_detail(row, deliveries.attempts_of(session, row.id))


@routes.post(
    "/v1/webhook_endpoints/<endpoint_id>/deliveries/<delivery_id>/redeliver",
    needs=Scope.WEBHOOKS_WRITE,
    answer=WebhookDelivery,
    errors=(404, 409),
)
def redeliver(plait: Services, who: Principal, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
    """Sends a message again, at once and under the same `webhook-id`, whether it had arrived or not."""
    with plait.change(who) as session:
        return delivery(deliveries.redeliver(session, who.tenant, endpoint_id, delivery_id))

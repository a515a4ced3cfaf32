"""Webhook endpoints over HTTP, in the shapes that the stock client's `client.webhooks` speaks."""

from flask import Response
from sqlalchemy.orm import Session

from api import requests, waiting
from api.routes import Routes, page_query, respond
from api.services import Services
from api.shapes import page
from api.webhook_shapes import (
    WebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointPage,
    WebhookEndpointWithSecret,
    WebhookTest,
    WebhookTypes,
    endpoint,
    endpoint_with_secret,
)
from api.webhook_shapes import test as shape_of_test
from db import deliveries, tables, webhooks
from domain.access import Principal, Scope
from domain.shapes import parse
from domain.targets import refuse
from domain.webhooks import EVENT_TYPES, DeliveryState, EndpointChange, NewEndpoint, Rotation, Trial
from egress.guard import Guard, Unresolved

routes = Routes()

#: Seconds that a request may spend on looking a host up.
_LOOK_UP_S = 3.0
#: A test is answered when it is over, for who does not say how long to wait.
_TEST_S = 20


@routes.post(
    "/v1/webhook_endpoints",
    needs=Scope.WEBHOOKS_WRITE,
    body=NewEndpoint,
    answer=WebhookEndpointWithSecret,
    errors=(400, 409, 413, 415, 422),
    takes_key=True,
)
def create(plait: Services, who: Principal) -> WebhookEndpointWithSecret:
    """Makes an endpoint. Its secret is in this answer and cannot be read again."""
    new, key = parse(NewEndpoint, requests.json_body()), requests.idempotency_key()
    _admit(plait, new.url)
    with plait.change(who) as session:
        row = webhooks.create(
            session, who.tenant, new, key=key, body_hash=requests.body_hash(new.model_dump())
        )
        return endpoint_with_secret(row)


@routes.get(
    "/v1/webhook_endpoints",
    needs=Scope.WEBHOOKS_READ,
    query=page_query(),
    answer=WebhookEndpointPage,
    errors=(400, 404),
)
def index(plait: Services, who: Principal) -> WebhookEndpointPage:
    """Lists the endpoints, newest first."""
    with plait.database.reading() as session:
        rows, more = webhooks.page(session, who.tenant, after=requests.after(), limit=requests.limit())
    return page(WebhookEndpointPage, [endpoint(row) for row in rows], more)


@routes.get(
    "/v1/webhook_endpoints/<endpoint_id>", needs=Scope.WEBHOOKS_READ, answer=WebhookEndpoint, errors=(404,)
)
def retrieve(plait: Services, who: Principal, endpoint_id: str) -> WebhookEndpoint:
    """Describes one endpoint."""
    with plait.database.reading() as session:
        return endpoint(webhooks.get(session, who.tenant, endpoint_id))


@routes.post(
    "/v1/webhook_endpoints/<endpoint_id>",
    needs=Scope.WEBHOOKS_WRITE,
    body=EndpointChange,
    answer=WebhookEndpoint,
    errors=(400, 404, 413, 415),
)
def update(plait: Services, who: Principal, endpoint_id: str) -> WebhookEndpoint:
    """Changes what the body names; `enabled` switches the endpoint off and on."""
    asked = parse(EndpointChange, requests.json_body())
    if asked.url is not None:
        _admit(plait, asked.url)
    with plait.change(who) as session:
        return endpoint(webhooks.change(session, who.tenant, endpoint_id, asked))


@routes.delete(
    "/v1/webhook_endpoints/<endpoint_id>",
    needs=Scope.WEBHOOKS_WRITE,
    answer=WebhookEndpointDeleted,
    errors=(404,),
)
def delete(plait: Services, who: Principal, endpoint_id: str) -> WebhookEndpointDeleted:
    """Deletes an endpoint; what still waits for it is not sent."""
    with plait.change(who) as session:
        webhooks.delete(session, who.tenant, endpoint_id)
    return WebhookEndpointDeleted(id=endpoint_id)


@routes.post(
    "/v1/webhook_endpoints/<endpoint_id>/rotate_secret",
    needs=Scope.WEBHOOKS_WRITE,
    body=Rotation,
    body_is_optional=True,
    answer=WebhookEndpointWithSecret,
    errors=(400, 404, 413, 415),
)
def rotate_secret(plait: Services, who: Principal, endpoint_id: str) -> WebhookEndpointWithSecret:
    """Makes a new secret; unless told otherwise, the old one signs as well for 24 hours."""
    asked = parse(Rotation, requests.optional_json_body())
    keep_old = asked.keep_old_secret_active_for_24_hours
    with plait.change(who) as session:
        return endpoint_with_secret(webhooks.rotate(session, who.tenant, endpoint_id, keep_old=keep_old))


@routes.post(
    "/v1/webhook_endpoints/<endpoint_id>/test",
    needs=Scope.WEBHOOKS_WRITE,
    body=Trial,
    body_is_optional=True,
    query=(waiting.PREFER,),
    answer=WebhookTest,
    errors=(400, 404, 409, 413, 415),
    statuses=(200, 202),
)
def test(plait: Services, who: Principal, endpoint_id: str) -> Response:
    """Sends a message that tells of nothing, once, and says what the receiver answered."""
    type_ = parse(Trial, requests.optional_json_body()).event_type
    with plait.change(who) as session:
        delivery_id = deliveries.sample(session, who.tenant, endpoint_id, type_).id

    def read(session: Session) -> tables.WebhookDelivery:
        return deliveries.get(session, who.tenant, endpoint_id, delivery_id)

    seconds = min(waiting.asked(default=_TEST_S), waiting.LONGEST_S)
    row = plait.waiting.hold(plait, read, _is_over, delivery_id, seconds)
    return waiting.applied(_answer(row))


def _is_over(row: tables.WebhookDelivery) -> bool:
    return row.state != DeliveryState.PENDING


def _answer(row: tables.WebhookDelivery) -> Response:
    response = respond(shape_of_test(row))
    if not _is_over(row):
        response.status_code = 202
        response.headers["Location"] = f"/v1/webhook_endpoints/{row.endpoint}/deliveries/{row.id}"
        response.headers["Retry-After"] = "1"
    return response


@routes.get("/v1/webhook_event_types", needs=Scope.WEBHOOKS_READ, answer=WebhookTypes)
def event_types(_plait: Services, _who: Principal) -> WebhookTypes:
    """Lists the types of messages that there are."""
    return WebhookTypes(data=list(EVENT_TYPES))


def _admit(plait: Services, url: str) -> None:
    """Refuses a URL to which nothing would be sent. It is judged again before each message: names may move."""
    try:
        Guard(plait.settings.webhook_hosts).admit(url, timeout_s=_LOOK_UP_S)
    except Unresolved as error:
        refuse(str(error))

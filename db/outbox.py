"""Messages on their way: written with the job's move, taken by a sender, settled under the number of that try.

A message is delivered at least once and always under the same id. Times are the database's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, insert, literal_column, or_, select, update
from sqlalchemy.orm import Session

from db.session import Database, now
from db.tables import Job, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from domain.ids import new_id
from domain.job import Kind, Stage, State
from domain.webhooks import (
    DISABLE_AFTER_S,
    GIVE_UP_S,
    Code,
    DeliveryState,
    delay_s,
    payload,
    subscribes,
    type_of,
)

#: An index holds the pending ones alone; a database finds it only where the word stands in the statement.
PENDING: ColumnElement[bool] = WebhookDelivery.state == literal_column(f"'{DeliveryState.PENDING}'")
LIVE = (WebhookEndpoint.deleted_at.is_(None), WebhookEndpoint.disabled_at.is_(None))


def is_free() -> ColumnElement[bool]:
    """No sender has the message, or one that fell silent."""
    return or_(WebhookDelivery.lease_until.is_(None), WebhookDelivery.lease_until < now())


def tell(session: Session, job: Job) -> None:
    """Writes a message to each endpoint of the job's tenant that wants to hear of its new state.

    Part of the transaction that moves the job: both or neither. Without endpoints it costs one look into an index.
    """
    type_ = type_of(Kind(job.kind), State(job.state), Stage(job.stage))
    if type_ is None:
        return
    columns = (WebhookEndpoint.id, WebhookEndpoint.event_types, now().label("instant"))
    query = select(*columns).where(WebhookEndpoint.tenant == job.tenant, *LIVE)
    listeners = [row for row in session.execute(query) if subscribes(row.event_types, type_)]
    if not listeners:
        return
    instant = listeners[0].instant
    text = payload(new_id("evt_"), type_, instant, _about(job))
    rows = [
        {
            "id": new_id("msg_"),
            "endpoint": listener.id,
            "tenant": job.tenant,
            "type": type_,
            "job": job.id,
            "payload": text,
            "give_up_at": instant + GIVE_UP_S,
        }
        for listener in listeners
    ]
    session.execute(insert(WebhookDelivery), rows)


def _about(job: Job) -> dict[str, Any]:
    """OpenAI sends the id alone; what else is here spares most receivers from asking for the job."""
    told: dict[str, Any] = {"id": job.id, "status": job.state}
    if job.kind == Kind.FINE_TUNE and job.state == State.SUCCEEDED:
        told["fine_tuned_model"] = (job.result or {}).get("model")
    if job.state == State.FAILED and job.error:
        told["error"] = {name: job.error.get(name) for name in ("code", "message")}
    return told


@dataclass(frozen=True)
class Outgoing:
    """A message that a sender has taken: what it needs to send it, and the number under which it settles it."""

    id: str
    attempt: int
    endpoint: str
    tenant: str
    url: str
    payload: str
    #: What signs it, the newest first.
    secrets: tuple[str, ...]
    taken_at: float


def waiting(session: Session, limit: int = 1_000) -> Sequence[tuple[str, str]]:
    """(endpoint, tenant) of endpoints to which something is due, in no order: so that none is always the last."""
    is_due = select(WebhookDelivery.id).where(WebhookDelivery.endpoint == WebhookEndpoint.id, *_due())
    query = select(WebhookEndpoint.id, WebhookEndpoint.tenant).where(*LIVE, is_due.exists())
    return [(id_, tenant) for id_, tenant in session.execute(query.order_by(func.random()).limit(limit))]


def _due() -> tuple[ColumnElement[bool], ...]:
    return (PENDING, WebhookDelivery.next_at <= now(), is_free())


def take(database: Database, endpoint_id: str, ttl: float, limit: int) -> list[Outgoing]:
    """Up to `limit` messages that are due to this endpoint, the longest due first, for `ttl` seconds."""
    with database.transaction() as session:
        ids = session.scalars(
            select(WebhookDelivery.id)
            .where(WebhookDelivery.endpoint == endpoint_id, *_due())
            .order_by(WebhookDelivery.next_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        endpoint = session.scalars(
            select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, *LIVE)
        ).one_or_none()
        if endpoint is None or not ids:
            return []
        instant = session.scalars(select(now())).one()
        taken = session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id.in_(ids))
            .values(attempts=WebhookDelivery.attempts + 1, lease_until=instant + ttl)
            .returning(WebhookDelivery.id, WebhookDelivery.attempts, WebhookDelivery.payload)
            .execution_options(synchronize_session=False)
        ).all()
        secrets = _secrets(endpoint, instant)
        return [
            Outgoing(id_, attempt, endpoint_id, endpoint.tenant, endpoint.url, text, secrets, instant)
            for id_, attempt, text in taken
        ]


def _secrets(endpoint: WebhookEndpoint, instant: float) -> tuple[str, ...]:
    old, until = endpoint.old_secret, endpoint.old_secret_until
    return (endpoint.secret, old) if old and until and instant < until else (endpoint.secret,)


@dataclass(frozen=True)
class Tried:
    """What came of a try: an answer's status, or nothing; `error` is why it is no success."""

    duration_s: float
    status_code: int | None = None
    error: Code | None = None
    message: str | None = None
    answer: str = ""


def settle(database: Database, sent: Outgoing, tried: Tried) -> bool:
    """Notes a try and what follows from it. False, and nothing is written, when the message is no longer the
    sender's: another has it, or its endpoint was deleted."""
    with database.transaction() as session:
        mine = (
            WebhookDelivery.id == sent.id,
            WebhookDelivery.attempts == sent.attempt,
            WebhookDelivery.lease_until.is_not(None),
            PENDING,
        )
        delivery = session.scalars(select(WebhookDelivery).where(*mine).with_for_update()).one_or_none()
        if delivery is None:
            return False
        instant = session.scalars(select(now())).one()
        session.add(_logged(sent, tried))
        delivery.lease_until, delivery.status_code, delivery.error = None, tried.status_code, tried.error
        if tried.error is None:
            delivery.state, delivery.finished_at = DeliveryState.DELIVERED, instant
        else:
            _try_again(delivery, tried.error, instant)
        _note_health(session, delivery, tried.error, instant)
        return True


def _logged(sent: Outgoing, tried: Tried) -> WebhookAttempt:
    return WebhookAttempt(
        delivery=sent.id,
        number=sent.attempt,
        started_at=sent.taken_at,
        duration_s=tried.duration_s,
        status_code=tried.status_code,
        error=tried.error,
        message=tried.message,
        answer=tried.answer,
    )


def _try_again(delivery: WebhookDelivery, error: Code, instant: float) -> None:
    delivery.failures += 1
    is_last = delivery.is_test or error is Code.GONE
    delay = None if is_last else delay_s(delivery.failures, delivery.give_up_at - instant)
    if delay is None:
        delivery.state, delivery.finished_at = DeliveryState.FAILED, instant
    else:
        delivery.next_at = instant + delay


def _note_health(session: Session, delivery: WebhookDelivery, error: Code | None, instant: float) -> None:
    """An endpoint that works is told from one that fails, and one that fails for days is disabled.

    A test that fails says nothing yet: its owner is about to correct it.
    """
    failing, of_it = WebhookEndpoint.failing_since, WebhookEndpoint.id == delivery.endpoint
    if error is None:
        change = update(WebhookEndpoint).where(of_it, failing.is_not(None)).values(failing_since=None)
        session.execute(change)
        return
    if error is Code.GONE:
        _disable(session, of_it, "Its receiver answered 410: it wants no more messages.")
    if delivery.is_test:
        return
    session.execute(update(WebhookEndpoint).where(of_it, failing.is_(None)).values(failing_since=instant))
    days = DISABLE_AFTER_S / 86_400
    why = f"Every try failed for {days:g} days, the last one with {error}. Correct the receiver, then enable it."
    _disable(session, of_it & (failing <= instant - DISABLE_AFTER_S), why)


def _disable(session: Session, which: ColumnElement[bool], why: str) -> None:
    is_on = WebhookEndpoint.disabled_at.is_(None)
    session.execute(
        update(WebhookEndpoint).where(which, is_on).values(disabled_at=now(), disabled_reason=why)
    )

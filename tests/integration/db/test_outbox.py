"""Messages to webhook endpoints: written with the job's move, taken once, settled by whoever took them."""

import json
import threading
from typing import Any

import pytest
from sqlalchemy import func, select, update

from db import claims, deliveries, jobs, outbox, tenants, webhooks
from db.outbox import Outgoing, Tried
from db.session import Database, now
from db.tables import Job, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from domain.errors import Conflict, NotFound
from domain.job import Kind, Lane, Stage
from domain.webhooks import DISABLE_AFTER_S, Code, DeliveryState, EndpointChange, NewEndpoint

GOOD = Tried(0.1, 200, answer="ok")
BAD = Tried(0.1, 500, Code.BAD_STATUS, "The receiver answered 500.", "oh")


@pytest.fixture(autouse=True)
def _tenants(database: Database) -> None:
    with database.transaction() as session:
        tenants.ensure(session, "a")
        tenants.ensure(session, "b")


def endpoint(database: Database, *types: str, tenant: str = "a") -> WebhookEndpoint:
    new = NewEndpoint(url="https://hooks.example.com/", event_types=list(types) or ["*"])
    with database.transaction() as session:
        return webhooks.create(session, tenant, new)


def running(database: Database, kind: Kind = Kind.FINE_TUNE, tenant: str = "a") -> Job:
    """A job that a worker has just claimed for its last stage."""
    spec = {"model": "late-fusion", "training_file": "file-1"}
    new = jobs.Submission(tenant=tenant, spec=spec, kind=kind, stage=Stage.RUN, lane=Lane.TRAIN)
    with database.transaction() as session:
        jobs.submit(session, new)
    job = claims.claim(database, Lane.TRAIN, "w1", 60.0)
    assert job is not None
    return job


def finish(database: Database, job: Job, name: str = "job.succeeded", **values: Any) -> None:
    with database.transaction() as session:
        jobs.move(session, job.id, name, fence=job.fence, message="over", **values)


def messages(database: Database) -> list[WebhookDelivery]:
    with database.reading() as session:
        query = select(WebhookDelivery).order_by(WebhookDelivery.created_at, WebhookDelivery.id)
        return list(session.scalars(query))


def waiting_message(database: Database) -> tuple[WebhookEndpoint, str]:
    """An endpoint with one message that is due."""
    made = endpoint(database)
    with database.transaction() as session:
        return made, deliveries.sample(session, "a", made.id, "check.failed").id


def real(database: Database, message_id: str) -> None:
    """A sample that is tried like any other message."""
    change(database, message_id, is_test=False)


def change(database: Database, message_id: str, **values: Any) -> None:
    with database.transaction() as session:
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id == message_id).values(**values))


def change_endpoint(database: Database, endpoint_id: str, **values: Any) -> None:
    with database.transaction() as session:
        session.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id).values(**values))


def taken(database: Database, made: WebhookEndpoint, ttl: float = 60.0) -> Outgoing:
    (message,) = outbox.take(database, made.id, ttl, 10)
    return message


def read(database: Database, made: WebhookEndpoint) -> WebhookEndpoint:
    with database.reading() as session:
        return webhooks.get(session, made.tenant, made.id)


def test_the_states_of_a_fine_tune_are_told_to_those_who_asked_for_them(database: Database) -> None:
    every, ends, others = (
        endpoint(database),
        endpoint(database, "fine_tuning.job.succeeded"),
        endpoint(database, "check.failed"),
    )
    endpoint(database, tenant="b")

    job = running(database)
    finish(database, job, result={"model": "ft:late-fusion:a::x"})

    told = [(m.endpoint, m.type, m.job) for m in messages(database)]
    assert sorted(told) == sorted(
        [
            (every.id, "fine_tuning.job.running", job.id),
            (every.id, "fine_tuning.job.succeeded", job.id),
            (ends.id, "fine_tuning.job.succeeded", job.id),
        ]
    )
    assert others.id not in {m.endpoint for m in messages(database)}
    event = json.loads(next(m.payload for m in messages(database) if m.endpoint == ends.id))
    assert event["data"] == {
        "id": job.id,
        "status": "succeeded",
        "fine_tuned_model": "ft:late-fusion:a::x",
    }


def test_all_endpoints_get_the_same_event_under_ids_of_their_own(database: Database) -> None:
    endpoint(database, "check.succeeded"), endpoint(database, "check.succeeded")

    finish(database, running(database, Kind.CHECK), result={"errors": 0})

    first, second = messages(database)
    assert first.payload == second.payload
    assert first.id != second.id


def test_a_failure_is_told_with_its_code(database: Database) -> None:
    endpoint(database, "prediction.failed")

    finish(
        database,
        running(database, Kind.PREDICT),
        "job.failed",
        error={"code": "timeout", "message": "too slow", "param": None},
    )

    (message,) = messages(database)
    assert json.loads(message.payload)["data"]["error"] == {"code": "timeout", "message": "too slow"}


def test_a_move_that_is_rolled_back_tells_nobody(database: Database) -> None:
    endpoint(database)
    job = running(database, Kind.CHECK)

    with database.transaction() as session:
        jobs.move(session, job.id, "job.succeeded", fence=job.fence, message="over")
        session.rollback()

    assert messages(database) == []


def test_a_move_that_is_refused_tells_nobody(database: Database) -> None:
    endpoint(database)
    job = running(database, Kind.CHECK)

    with pytest.raises(Conflict), database.transaction() as session:
        jobs.move(session, job.id, "job.succeeded", fence=job.fence + 1, message="late")

    assert messages(database) == []


@pytest.mark.parametrize("how", ["disabled", "deleted"])
def test_an_endpoint_that_is_off_is_told_nothing(database: Database, how: str) -> None:
    made = endpoint(database)
    with database.transaction() as session:
        if how == "disabled":
            webhooks.change(session, "a", made.id, EndpointChange(enabled=False))
        else:
            webhooks.delete(session, "a", made.id)

    finish(database, running(database))

    assert messages(database) == []


def test_senders_at_the_same_moment_take_each_message_once(database: Database) -> None:
    made = endpoint(database)
    with database.transaction() as session:
        ids = {deliveries.sample(session, "a", made.id, "check.failed").id for _ in range(20)}
    barrier, found = threading.Barrier(4), []

    def send() -> None:
        barrier.wait()
        while some := outbox.take(database, made.id, 60.0, 3):
            found.extend(some)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Whoever met the others' locks may have seen nothing free and stopped early; nothing is taken twice.
    found += outbox.take(database, made.id, 60.0, 100)
    assert len(found) == 20
    assert {message.id for message in found} == ids


def test_a_message_that_is_delivered_is_over(database: Database) -> None:
    made, _ = waiting_message(database)

    message = taken(database, made)
    assert outbox.take(database, made.id, 60.0, 10) == []
    assert outbox.settle(database, message, GOOD)

    with database.reading() as session:
        row = deliveries.get(session, "a", made.id, message.id)
        (attempt,) = deliveries.attempts_of(session, message.id)
        assert outbox.waiting(session) == []
    assert (row.state, row.status_code, row.error) == (DeliveryState.DELIVERED, 200, None)
    assert (attempt.number, attempt.status_code, attempt.answer) == (1, 200, "ok")


def test_a_failure_is_tried_again_later_under_the_same_id(database: Database) -> None:
    made, message_id = waiting_message(database)
    real(database, message_id)

    outbox.settle(database, taken(database, made), BAD)

    (row,) = messages(database)
    assert row.state == DeliveryState.PENDING
    assert 3 <= row.next_at - row.created_at < 60
    assert outbox.take(database, made.id, 60.0, 10) == []
    change(database, message_id, next_at=now())
    assert taken(database, made).id == message_id


def test_a_sender_that_died_loses_its_message_and_one_that_froze_cannot_settle_it(database: Database) -> None:
    made, _ = waiting_message(database)
    frozen = taken(database, made, ttl=-1.0)

    second = taken(database, made)

    assert (second.id, second.attempt) == (frozen.id, frozen.attempt + 1)
    assert not outbox.settle(database, frozen, GOOD)
    assert outbox.settle(database, second, BAD)
    assert not outbox.settle(database, second, GOOD)
    with database.reading() as session:
        assert [a.number for a in deliveries.attempts_of(session, second.id)] == [2]


def test_a_message_is_given_up_when_its_day_is_over(database: Database) -> None:
    made, message_id = waiting_message(database)
    real(database, message_id)
    change(database, message_id, give_up_at=now() + 1)

    outbox.settle(database, taken(database, made), BAD)

    (row,) = messages(database)
    assert (row.state, row.error) == (DeliveryState.FAILED, "bad_status")


def test_what_waits_for_a_disabled_endpoint_goes_on_when_it_is_enabled_within_the_day(
    database: Database,
) -> None:
    made, message_id = waiting_message(database)
    off, on = EndpointChange(enabled=False), EndpointChange(enabled=True)

    with database.transaction() as session:
        webhooks.change(session, "a", made.id, off)
        assert outbox.waiting(session) == []
        assert deliveries.expire(session) == 0
    assert outbox.take(database, made.id, 60.0, 10) == []
    with database.transaction() as session:
        webhooks.change(session, "a", made.id, on)
        assert outbox.waiting(session) == [(made.id, "a")]
        webhooks.change(session, "a", made.id, off)

    change(database, message_id, give_up_at=now() - 1)
    with database.transaction() as session:
        assert deliveries.expire(session) == 1
    assert [(m.state, m.error) for m in messages(database)] == [(DeliveryState.FAILED, "expired")]


def test_what_no_sender_was_there_for_on_its_day_is_still_tried_once(database: Database) -> None:
    made, message_id = waiting_message(database)
    real(database, message_id)
    change(database, message_id, give_up_at=now() - 1)

    with database.transaction() as session:
        assert deliveries.expire(session) == 0
    outbox.settle(database, taken(database, made), BAD)

    assert [(m.state, m.error) for m in messages(database)] == [(DeliveryState.FAILED, "bad_status")]


def test_a_receiver_that_answers_410_is_disabled_at_once(database: Database) -> None:
    made, message_id = waiting_message(database)
    real(database, message_id)

    outbox.settle(database, taken(database, made), Tried(0.1, 410, Code.GONE, "no more"))

    off = read(database, made)
    assert off.disabled_at is not None
    assert "410" in (off.disabled_reason or "")
    assert messages(database)[0].state == DeliveryState.FAILED


def test_an_endpoint_that_fails_for_days_is_disabled_with_the_reason(database: Database) -> None:
    made, message_id = waiting_message(database)
    real(database, message_id)

    outbox.settle(database, taken(database, made), BAD)
    since = read(database, made).failing_since
    assert since is not None
    assert read(database, made).disabled_at is None

    change_endpoint(database, made.id, failing_since=since - DISABLE_AFTER_S)
    change(database, message_id, next_at=now())
    outbox.settle(database, taken(database, made), BAD)

    off = read(database, made)
    assert off.disabled_at is not None
    assert "bad_status" in (off.disabled_reason or "")


def test_one_success_ends_a_row_of_failures(database: Database) -> None:
    made, _ = waiting_message(database)
    change_endpoint(database, made.id, failing_since=now() - 10 * DISABLE_AFTER_S)

    outbox.settle(database, taken(database, made), GOOD)

    healthy = read(database, made)
    assert (healthy.failing_since, healthy.disabled_at) == (None, None)


def test_a_test_is_tried_once_and_says_nothing_of_the_endpoints_health(database: Database) -> None:
    made, _ = waiting_message(database)

    outbox.settle(database, taken(database, made), BAD)

    assert messages(database)[0].state == DeliveryState.FAILED
    assert read(database, made).failing_since is None


def test_both_secrets_sign_while_the_old_one_is_valid(database: Database) -> None:
    made, _ = waiting_message(database)
    with database.transaction() as session:
        rotated = webhooks.rotate(session, "a", made.id, keep_old=True)

    assert taken(database, made, ttl=-1).secrets == (rotated.secret, made.secret)

    change_endpoint(database, made.id, old_secret_until=now() - 1)
    assert taken(database, made, ttl=-1).secrets == (rotated.secret,)
    with database.transaction() as session:
        last = webhooks.rotate(session, "a", made.id, keep_old=False)
    assert taken(database, made).secrets == (last.secret,)


def test_a_message_is_sent_again_whether_it_arrived_or_not_but_not_while_it_is_sent(
    database: Database,
) -> None:
    made, message_id = waiting_message(database)

    def again() -> WebhookDelivery:
        with database.transaction() as session:
            return deliveries.redeliver(session, "a", made.id, message_id)

    message = taken(database, made)
    with pytest.raises(Conflict) as told:
        again()
    assert told.value.code == "delivery_in_progress"
    outbox.settle(database, message, GOOD)

    assert again().state == DeliveryState.PENDING
    second = taken(database, made)
    assert (second.id, second.attempt, second.payload) == (message_id, 2, message.payload)
    outbox.settle(database, second, BAD)
    assert again().failures == 0


def test_a_redelivery_to_a_disabled_endpoint_is_refused(database: Database) -> None:
    made, message_id = waiting_message(database)
    with database.transaction() as session:
        webhooks.change(session, "a", made.id, EndpointChange(enabled=False))

    with pytest.raises(Conflict, match="disabled by its owner"), database.transaction() as session:
        deliveries.redeliver(session, "a", made.id, message_id)


def test_a_deleted_endpoint_forgets_its_secret_and_what_waits_for_it(database: Database) -> None:
    made, message_id = waiting_message(database)

    with database.transaction() as session:
        webhooks.delete(session, "a", made.id)

    assert [(m.state, m.error) for m in messages(database)] == [(DeliveryState.FAILED, "endpoint_deleted")]
    with database.reading() as session:
        assert session.get_one(WebhookEndpoint, made.id).secret == ""
        with pytest.raises(NotFound):
            deliveries.get(session, "a", made.id, message_id)


def test_old_messages_are_forgotten_with_their_tries_and_waiting_ones_are_not(database: Database) -> None:
    made, old = waiting_message(database)
    outbox.settle(database, taken(database, made), GOOD)
    change(database, old, finished_at=now() - 100)
    with database.transaction() as session:
        young, waiting = (deliveries.sample(session, "a", made.id, "check.failed").id for _ in range(2))
    change(database, young, state=DeliveryState.DELIVERED, finished_at=now())

    with database.transaction() as session:
        assert [deliveries.forget(session, before_s=50) for _ in range(2)] == [1, 0]
        left = set(session.scalars(select(WebhookDelivery.id)))
        assert session.scalar(select(func.count()).select_from(WebhookAttempt)) == 0
    assert left == {young, waiting}


def test_endpoints_made_at_the_same_moment_are_not_more_than_a_tenant_may_have(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.webhooks.MOST_ENDPOINTS", 3)
    barrier, made = threading.Barrier(6), []

    def one() -> None:
        barrier.wait()
        try:
            made.append(endpoint(database).id)
        except Conflict as error:
            made.append(error.code)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert made.count("too_many_webhook_endpoints") == 3

"""Webhooks on their way: a real sender, real receivers, and the stock client that reads what arrives."""

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import standardwebhooks
from sqlalchemy import select, update

from db import deliveries, outbox, tenants, webhooks
from db.session import Database, now
from db.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from domain.webhooks import DeliveryState, NewEndpoint
from egress.guard import Guard
from support.databases import migrated
from support.scripted import Answer, Asked, ScriptedServer
from support.stack import Stack, stack, until
from worker.upkeep import webhooks as sending

HOOK = "POST /hook"
LIMIT_S = 30.0


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    scripted.on(HOOK, {})
    yield scripted
    scripted.stop()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """One kind of database is enough here: what a sender asks of it, tests/integration/db tries on both."""
    with migrated(f"sqlite:///{tmp_path / 'plait.db'}") as made:
        with made.transaction() as session:
            tenants.ensure(session, "a")
            tenants.ensure(session, "b")
        yield made


@contextmanager
def sender(database: Database, *, timeout_s: float = 5.0, allowed: str = "127.0.0.0/8") -> Iterator[None]:
    """A sender in a thread, as upkeep has one."""
    over = threading.Event()
    made = sending.Sender(database, Guard([allowed]), timeout_s=timeout_s)
    thread = threading.Thread(target=made.run, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        made.stir()
        thread.join()


def endpoint(database: Database, url: str, tenant: str = "a") -> WebhookEndpoint:
    with database.transaction() as session:
        return webhooks.create(session, tenant, NewEndpoint(url=url))


def message(
    database: Database, made: WebhookEndpoint, type_: str = "fine_tuning.job.failed", *, is_test: bool = False
) -> str:
    with database.transaction() as session:
        row = deliveries.sample(session, made.tenant, made.id, type_)
        row.is_test = is_test
        return row.id


def row_of(database: Database, message_id: str) -> WebhookDelivery:
    with database.reading() as session:
        return session.get_one(WebhookDelivery, message_id)


def settled(database: Database, message_id: str, attempts: int = 1) -> WebhookDelivery:
    """The message once it was tried that often."""

    def tried(row: WebhookDelivery) -> bool:
        return row.attempts >= attempts and row.lease_until is None

    return until(lambda: row_of(database, message_id), tried, limit_s=LIMIT_S)


def due(database: Database, message_id: str) -> None:
    """Its wait, and the lease of whoever has it, are over."""
    with database.transaction() as session:
        of_it = update(WebhookDelivery).where(WebhookDelivery.id == message_id)
        session.execute(of_it.values(next_at=now() - 1, lease_until=None))


def errors(database: Database, message_id: str) -> list[str | None]:
    with database.reading() as session:
        query = select(WebhookAttempt.error).where(WebhookAttempt.delivery == message_id)
        return list(session.scalars(query.order_by(WebhookAttempt.number)))


def unwrapped(asked: Asked, secret: str) -> Any:
    client = openai.OpenAI(api_key="none", webhook_secret=secret)
    return client.webhooks.unwrap(asked.body, asked.headers)


def test_what_arrives_is_unwrapped_by_the_stock_client_and_by_standard_webhooks(
    database: Database, server: ScriptedServer
) -> None:
    made = endpoint(database, f"{server.base_url}/hook")
    message_id = message(database, made)

    with sender(database):
        row = settled(database, message_id)

    (asked,) = server.asked
    event = unwrapped(asked, made.secret)
    assert isinstance(event, openai.types.webhooks.FineTuningJobFailedWebhookEvent)
    assert (event.object, event.data.id) == ("event", made.id)
    assert standardwebhooks.Webhook(made.secret).verify(asked.body, asked.headers) == json.loads(asked.body)
    assert asked.headers["webhook-id"] == message_id
    assert asked.headers["content-type"] == "application/json"
    assert asked.body.decode() == row.payload
    assert row.state == DeliveryState.DELIVERED


def test_the_stock_client_refuses_what_was_changed_or_is_old(
    database: Database, server: ScriptedServer
) -> None:
    made = endpoint(database, f"{server.base_url}/hook")
    with sender(database):
        settled(database, message(database, made))
    (asked,) = server.asked
    old = str(int(asked.headers["webhook-timestamp"]) - 400)
    wrong = [
        Asked(asked.method, asked.path, {}, asked.headers, asked.body.replace(b"failed", b"succee")),
        Asked(asked.method, asked.path, {}, asked.headers | {"webhook-timestamp": old}, asked.body),
        Asked(asked.method, asked.path, {}, asked.headers | {"webhook-id": "msg_other"}, asked.body),
    ]

    for changed in wrong:
        with pytest.raises(openai.InvalidWebhookSignatureError):
            unwrapped(changed, made.secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrapped(asked, webhooks.new_secret())


def test_during_a_rotation_the_old_and_the_new_secret_both_verify(
    database: Database, server: ScriptedServer
) -> None:
    made = endpoint(database, f"{server.base_url}/hook")
    with database.transaction() as session:
        rotated = webhooks.rotate(session, "a", made.id, keep_old=True)

    with sender(database):
        settled(database, message(database, made))

    (asked,) = server.asked
    assert len(asked.headers["webhook-signature"].split()) == 2
    assert rotated.secret != made.secret
    for secret in (made.secret, rotated.secret):
        assert unwrapped(asked, secret).type == "fine_tuning.job.failed"


def test_a_failure_is_tried_again_under_the_same_id_with_a_fresh_signature(
    database: Database, server: ScriptedServer
) -> None:
    server.on(HOOK, Answer(500, b"oh\x1b[2J\0no"), {})
    made = endpoint(database, f"{server.base_url}/hook")
    message_id = message(database, made)

    with sender(database):
        first = settled(database, message_id)
        due(database, message_id)
        second = settled(database, message_id, attempts=2)

    assert (first.state, first.error, first.status_code) == (DeliveryState.PENDING, "bad_status", 500)
    assert second.state == DeliveryState.DELIVERED
    assert [asked.headers["webhook-id"] for asked in server.asked] == [message_id] * 2
    assert server.asked[0].body == server.asked[1].body
    for asked in server.asked:
        unwrapped(asked, made.secret)
    with database.reading() as session:
        tries = deliveries.attempts_of(session, message_id)
    assert [(a.error, a.status_code, a.answer) for a in tries] == [
        ("bad_status", 500, "oh [2J no"),
        (None, 200, "{}"),
    ]


def test_a_receiver_that_is_down_is_tried_until_it_is_up(database: Database, server: ScriptedServer) -> None:
    made = endpoint(database, f"{server.base_url}/hook")
    message_id = message(database, made)
    server.stop()

    with sender(database):
        assert settled(database, message_id).error == "no_connection"
        server.start()
        due(database, message_id)
        assert settled(database, message_id, attempts=2).state == DeliveryState.DELIVERED

    assert errors(database, message_id) == ["no_connection", None]


def test_a_receiver_that_hangs_holds_up_nobody_else(database: Database, server: ScriptedServer) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        hanging = endpoint(database, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        swift = endpoint(database, f"{server.base_url}/hook")
        stuck = [message(database, hanging) for _ in range(40)]

        with sender(database, timeout_s=1.0):
            until(
                lambda: [row_of(database, id_).lease_until for id_ in stuck],
                lambda leases: sum(lease is not None for lease in leases) == sending.MOST_OF_ENDPOINT,
                limit_s=LIMIT_S,
            )
            quick = [message(database, swift) for _ in range(10)]
            for id_ in quick:
                assert settled(database, id_).state == DeliveryState.DELIVERED
            # All of the swift one's arrived while some of the other's still waited for their first try.
            assert sum(row_of(database, id_).attempts == 0 for id_ in stuck) > 0
            until(lambda: [e for id_ in stuck for e in errors(database, id_)], len, limit_s=LIMIT_S)

    assert {error for id_ in stuck for error in errors(database, id_)} == {"delivery_timeout"}


def test_a_tenant_whose_receivers_all_hang_leaves_room_for_others(
    database: Database, server: ScriptedServer
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        stuck = [message(database, endpoint(database, url)) for _ in range(sending.MOST_OF_TENANT + 4)]
        with sender(database, timeout_s=1.5):
            until(
                lambda: sum(row_of(database, id_).lease_until is not None for id_ in stuck),
                lambda busy: busy == sending.MOST_OF_TENANT,
                limit_s=LIMIT_S,
            )
            other = message(database, endpoint(database, f"{server.base_url}/hook", tenant="b"))
            assert settled(database, other).state == DeliveryState.DELIVERED


def test_a_receiver_that_answers_410_hears_no_more(database: Database, server: ScriptedServer) -> None:
    server.on(HOOK, Answer(410))
    made = endpoint(database, f"{server.base_url}/hook")
    first, second = message(database, made), message(database, made)

    with sender(database):
        until(lambda: row_of(database, first).state, lambda s: s == DeliveryState.FAILED, limit_s=LIMIT_S)

    with database.reading() as session:
        off = webhooks.get(session, "a", made.id)
        assert outbox.waiting(session) == []
    assert off.disabled_at is not None
    assert row_of(database, second).state in (DeliveryState.PENDING, DeliveryState.FAILED)


def test_a_redirect_to_this_machine_is_a_failure_and_is_not_followed(
    database: Database, server: ScriptedServer
) -> None:
    server.on(HOOK, Answer(302, {}, {"Location": f"{server.base_url}/secret"}))
    made = endpoint(database, f"{server.base_url}/hook")
    message_id = message(database, made)

    with sender(database):
        assert settled(database, message_id).error == "redirected"

    assert [asked.path for asked in server.asked] == ["/v1/hook"]


def test_a_url_that_has_become_private_is_refused_before_anything_is_sent(
    database: Database, server: ScriptedServer
) -> None:
    made = endpoint(database, f"{server.base_url}/hook".replace("http:", "https:"))
    message_id = message(database, made)

    with sender(database, allowed="10.0.0.0/8"):
        row = settled(database, message_id)

    assert (row.state, row.error) == (DeliveryState.PENDING, "webhook_url_refused")
    assert server.asked == []


def test_a_message_that_is_sent_again_arrives_under_its_id(
    database: Database, server: ScriptedServer
) -> None:
    made = endpoint(database, f"{server.base_url}/hook")
    message_id = message(database, made)

    with sender(database):
        settled(database, message_id)
        with database.transaction() as session:
            deliveries.redeliver(session, "a", made.id, message_id)
        settled(database, message_id, attempts=2)

    assert [asked.headers["webhook-id"] for asked in server.asked] == [message_id] * 2


@pytest.fixture(params=["sqlite", "postgresql"])
def plait(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    with stack(tmp_path, kind=request.param, webhook_allow="127.0.0.1", webhook_timeout_s=20.0) as made:
        yield made


class Holding:
    """A receiver that keeps the first message waiting for its answer and answers the others."""

    def __init__(self, server: ScriptedServer) -> None:
        self.release = threading.Event()
        self._server, self._next = server, server.next
        server.next = self  # type: ignore[assignment]

    def __call__(self, asked: Asked) -> Answer:
        answer = self._next(asked)
        if len(self._server.asked) == 1:
            self.release.wait(LIMIT_S)
        return answer


def test_a_message_survives_the_kill_of_its_sender_in_the_middle(
    plait: Stack, server: ScriptedServer
) -> None:
    made = endpoint(plait.database, f"{server.base_url}/hook", tenant="default")
    receiver = Holding(server)
    message_id = message(plait.database, made)
    first = plait.start("upkeep")
    until(lambda: len(server.asked), bool, limit_s=LIMIT_S, about=lambda: log_of(plait))

    first.send_signal(signal.SIGKILL)
    first.wait()
    assert row_of(plait.database, message_id).state == DeliveryState.PENDING
    due(plait.database, message_id)
    second = plait.start("upkeep")

    row = settled(plait.database, message_id, attempts=2)
    receiver.release.set()
    assert row.state == DeliveryState.DELIVERED, log_of(plait)
    assert [asked.headers["webhook-id"] for asked in server.asked] == [message_id] * 2
    second.send_signal(signal.SIGTERM)
    assert second.wait(LIMIT_S) == 0


def log_of(plait: Stack) -> str:
    return (plait.folder / "upkeep.log").read_text()[-3000:]

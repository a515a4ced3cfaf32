"""What is told, in which words, and how long a receiver is tried."""

import base64
import json

import pytest

from domain.errors import InvalidSpec
from domain.job import FINAL, Kind, Stage, State
from domain.shapes import parse
from domain.webhooks import (
    DELAYS_S,
    EVENT_TYPES,
    GIVE_UP_S,
    EndpointChange,
    NewEndpoint,
    Trial,
    delay_s,
    new_secret,
    payload,
    subscribes,
    type_of,
)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_end_of_every_kind_of_job_is_told(kind: Kind) -> None:
    told = {type_of(kind, state, Stage.RUN) for state in FINAL}

    assert None not in told
    assert told <= set(EVENT_TYPES)


def test_a_fine_tune_is_told_to_run_when_training_begins_and_to_stand_still() -> None:
    def told(state: State, stage: Stage) -> str | None:
        return type_of(Kind.FINE_TUNE, state, stage)

    assert told(State.RUNNING, Stage.VALIDATE) is None
    assert told(State.RUNNING, Stage.RUN) == "fine_tuning.job.running"
    assert told(State.PAUSED, Stage.VALIDATE) == "fine_tuning.job.paused"
    assert told(State.QUEUED, Stage.RUN) is None
    assert type_of(Kind.PREDICT, State.RUNNING, Stage.RUN) is None


def test_an_endpoint_hears_its_types_or_all() -> None:
    assert subscribes(["*"], "check.failed")
    assert subscribes(["check.failed", "prediction.failed"], "check.failed")
    assert not subscribes(["check.succeeded"], "check.failed")


def test_the_waits_add_up_to_a_day_and_jitter_only_shortens_them() -> None:
    waits = [delay_s(n, GIVE_UP_S) for n in range(1, len(DELAYS_S) + 1)]

    assert 0.95 * GIVE_UP_S < sum(DELAYS_S) <= GIVE_UP_S
    assert all(0.8 * most <= (wait or 0) <= most for wait, most in zip(waits, DELAYS_S, strict=True))
    assert len({delay_s(3, GIVE_UP_S) for _ in range(20)}) > 1


def test_a_message_is_given_up_after_its_last_wait_or_its_last_day() -> None:
    assert delay_s(len(DELAYS_S) + 1, GIVE_UP_S) is None
    assert delay_s(2, left_s=200.0) is None
    assert delay_s(2, left_s=300.0) is not None


def test_a_secret_is_one_of_standard_webhooks_and_never_the_same() -> None:
    first, second = new_secret(), new_secret()

    assert first != second
    assert first.startswith("whsec_")
    assert len(base64.b64decode(first.removeprefix("whsec_"), validate=True)) == 32


def test_a_payload_is_an_event_in_openais_shape() -> None:
    event = json.loads(payload("evt_1", "check.failed", 12.9, {"id": "check_1"}))

    assert event == {
        "id": "evt_1",
        "object": "event",
        "created_at": 12,
        "type": "check.failed",
        "data": {"id": "check_1"},
    }


def test_types_are_known_and_each_once() -> None:
    new = parse(NewEndpoint, {"url": "https://a.b", "event_types": ["check.failed", "check.failed"]})

    assert new.event_types == ["check.failed"]
    assert parse(NewEndpoint, {"url": "https://a.b"}).event_types == ["*"]
    for shape, body in (
        (NewEndpoint, {"url": "https://a.b", "event_types": ["check.exploded"]}),
        (NewEndpoint, {"url": "https://a.b", "event_types": []}),
        (EndpointChange, {"event_types": ["nothing"]}),
        (Trial, {"event_type": "nothing"}),
        (Trial, {"event_type": "*"}),
    ):
        with pytest.raises(InvalidSpec, match="event_type"):
            parse(shape, body)

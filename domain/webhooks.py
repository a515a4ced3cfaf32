"""What is told to a tenant's endpoints, in which words, and how often a receiver is tried.

The wire format is that of Standard Webhooks (https://www.standardwebhooks.com).
"""

import json
import random
import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from domain.job import FINAL, Kind, Stage, State
from domain.shapes import Shape
from domain.targets import LONGEST_URL

#: Stands for all types, also those that come with a later version.
EVERY = "*"
#: What `POST .../test` sends unless it is asked for another type.
TEST = "webhook.test"

MOST_ENDPOINTS = 20
LONGEST_NAME = 200

_NOUNS: Mapping[Kind, str] = {
    Kind.FINE_TUNE: "fine_tuning.job",
    Kind.CHECK: "check",
    Kind.PREDICT: "prediction",
}
#: Short jobs tell only how they ended; of a long one it is also of interest that it runs or stands still.
_TOLD: Mapping[Kind, frozenset[State]] = {
    Kind.FINE_TUNE: FINAL | {State.RUNNING, State.PAUSED},
    Kind.CHECK: FINAL,
    Kind.PREDICT: FINAL,
}
EVENT_TYPES = tuple(f"{_NOUNS[kind]}.{state}" for kind in _NOUNS for state in State if state in _TOLD[kind])


def type_of(kind: Kind, state: State, stage: Stage) -> str | None:
    """The type of the message about a job that has come into this state; None where nobody is told.

    A fine-tune runs when training begins: that its files are looked through is none of its statuses.
    """
    if state not in _TOLD.get(kind, ()) or (state is State.RUNNING and stage is not Stage.RUN):
        return None
    return f"{_NOUNS[kind]}.{state}"


def subscribes(types: Iterable[str], type_: str) -> bool:
    """Whether an endpoint with these event types is told of this one."""
    return EVERY in types or type_ in types


def payload(event_id: str, type_: str, created_at: float, data: Mapping[str, Any]) -> str:
    """The text that is signed and sent: an event in OpenAI's shape."""
    event = {
        "id": event_id,
        "object": "event",
        "created_at": int(created_at),
        "type": type_,
        "data": dict(data),
    }
    return json.dumps(event, separators=(",", ":"))


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Code(StrEnum):
    """Why a try to deliver failed, or a message was given up."""

    TIMEOUT = "delivery_timeout"
    NO_ADDRESS = "no_address"
    URL_REFUSED = "webhook_url_refused"
    NO_CONNECTION = "no_connection"
    TLS_FAILED = "tls_failed"
    BROKEN_ANSWER = "broken_answer"
    REDIRECTED = "redirected"
    BAD_STATUS = "bad_status"
    #: Its receiver wants no more: 410.
    GONE = "gone"
    #: It was not tried on its last day: the endpoint was disabled.
    EXPIRED = "expired"
    ENDPOINT_DELETED = "endpoint_deleted"


#: Waits after the first, second ... failure in a row; 24 hours in all, less what jitter takes off.
DELAYS_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 21_600.0)
GIVE_UP_S = 86_400.0
#: An endpoint at which nothing arrived for so long is disabled.
DISABLE_AFTER_S = 5 * 86_400.0
#: A secret that was rotated stays valid for so long.
OLD_SECRET_S = 86_400.0


def delay_s(failures: int, left_s: float) -> float | None:
    """Seconds until a message that failed `failures` times is tried again; None: it is given up.

    `left_s` are the seconds until its last day is over. Jitter keeps the messages of an outage apart.
    """
    if failures > len(DELAYS_S):
        return None
    delay = DELAYS_S[failures - 1] * random.uniform(0.8, 1.0)
    return delay if delay <= left_s else None


def new_secret() -> str:
    """A fresh signing secret, as Standard Webhooks writes it: `whsec_` and 32 random bytes."""
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()


def _known(types: list[str]) -> list[str]:
    unknown = sorted(set(types) - {*EVENT_TYPES, EVERY})
    if unknown:
        raise ValueError(
            f"no such type: {', '.join(unknown)[:200]}; there are: {EVERY}, {', '.join(EVENT_TYPES)}"
        )
    return sorted(set(types))


Types = Annotated[
    list[str],
    AfterValidator(_known),
    Field(
        min_length=1,
        max_length=100,
        description="`*` stands for all",
        examples=[["*"], list(EVENT_TYPES[:3])],
    ),
]
Url = Annotated[str, Field(min_length=1, max_length=LONGEST_URL, description="https://..., what receives")]
Name = Annotated[str, Field(max_length=LONGEST_NAME, description="what the endpoint is for")]


class NewEndpoint(Shape):
    """What `POST /v1/webhook_endpoints` takes."""

    url: Url
    event_types: Types = Field(default_factory=lambda: [EVERY])
    name: Name = ""


class EndpointChange(Shape):
    """What is given is changed; `enabled: true` also forgets earlier failures."""

    url: Url | None = None
    event_types: Types | None = None
    name: Name | None = None
    enabled: bool | None = None


class Rotation(Shape):
    keep_old_secret_active_for_24_hours: bool = Field(
        default=True, description="false: the old secret signs no more at once, as when it has leaked"
    )


def _sent_by_us(type_: str) -> str:
    if type_ != TEST:
        _known([type_])
    if type_ == EVERY:
        raise ValueError("a test is of one type")
    return type_


class Trial(Shape):
    event_type: Annotated[str, AfterValidator(_sent_by_us)] = Field(
        default=TEST, description="the type that the sample pretends to be"
    )

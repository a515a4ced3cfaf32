"""Who may do what: scopes of a key, and what is asked of a new one."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from domain.errors import BadRequest, Forbidden
from domain.rate import Rate
from domain.shapes import Shape


class Scope(StrEnum):
    FILES_READ = "files:read"
    FILES_WRITE = "files:write"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    MODELS_READ = "models:read"
    PREDICTIONS_READ = "predictions:read"
    PREDICTIONS_WRITE = "predictions:write"
    MODELS_WRITE = "models:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    #: Make, rotate and revoke the tenant's keys. What such a key may do itself, it may give away.
    KEYS_WRITE = "keys:write"
    AUDIT_READ = "audit:read"


ALL_SCOPES = frozenset(Scope)
#: What a key carries unless asked otherwise: all but the power over other keys.
USUAL_SCOPES = ALL_SCOPES - {Scope.KEYS_WRITE}

_DAY_S = 86_400

#: A prediction is a job: who may handle jobs may predict, and keys made before these scopes were go on
#: working. The narrower scope is for a key that may predict and nothing else.
_WIDER = {Scope.PREDICTIONS_READ: Scope.JOBS_READ, Scope.PREDICTIONS_WRITE: Scope.JOBS_WRITE}


@dataclass(frozen=True)
class Principal:
    """The caller, as its key says."""

    tenant: str
    key_id: str
    scopes: frozenset[Scope]
    #: How many requests the tenant may send; None: any number.
    rate: Rate | None = None

    def needs(self, scope: Scope) -> None:
        """Raises Forbidden unless the key carries `scope` or one that holds it."""
        if not self.scopes & {scope, _WIDER.get(scope, scope)}:
            raise Forbidden(f"This key lacks the scope {scope}; ask for a key that has it.")

    def usual(self) -> frozenset[Scope]:
        """The scopes of a key that this one makes, unless asked otherwise; BadRequest where that is nothing."""
        usual = self.scopes - {Scope.KEYS_WRITE}
        if not usual:
            raise BadRequest("This key has keys:write alone; name the scopes of the new one.", param="scopes")
        return usual

    def may_give(self, scopes: Iterable[Scope | str]) -> None:
        """Raises Forbidden when a key with `scopes` could do more than this one."""
        held = self.scopes | {narrow for narrow, wide in _WIDER.items() if wide in self.scopes}
        more = sorted(set(scopes) - held)
        if more:
            raise Forbidden(f"This key lacks {', '.join(more)} and cannot give it; leave it out.")


class NewKey(Shape):
    """What a new key is made of."""

    name: str = Field(default="key", min_length=1, max_length=200, description="what the key is for")
    scopes: list[Scope] | None = Field(
        default=None,
        min_length=1,
        max_length=len(Scope),
        description="what it may do; without them all that the caller's key may, but `keys:write`",
    )
    expires_in_s: float | None = Field(
        default=None, gt=0, le=3650 * _DAY_S, description="seconds until it expires; null: never"
    )


class Rotation(Shape):
    """How a key is replaced."""

    grace_s: float = Field(
        default=_DAY_S, ge=0, le=90 * _DAY_S, description="seconds for which the old key goes on working"
    )

"""Who may do what: scopes of a key."""

from dataclasses import dataclass
from enum import StrEnum

from domain.errors import Forbidden


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


ALL_SCOPES = frozenset(Scope)

#: A prediction is a job: who may handle jobs may predict, and keys made before these scopes were go on
#: working. The narrower scope is for a key that may predict and nothing else.
_WIDER = {Scope.PREDICTIONS_READ: Scope.JOBS_READ, Scope.PREDICTIONS_WRITE: Scope.JOBS_WRITE}


@dataclass(frozen=True)
class Principal:
    """The caller, as its key says."""

    tenant: str
    key_id: str
    scopes: frozenset[Scope]

    def needs(self, scope: Scope) -> None:
        """Raises Forbidden unless the key carries `scope` or one that holds it."""
        if not self.scopes & {scope, _WIDER.get(scope, scope)}:
            raise Forbidden(f"This key lacks the scope {scope}; ask for a key that has it.")

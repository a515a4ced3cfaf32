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
    MODELS_WRITE = "models:write"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True)
class Principal:
    """The caller, as its key says."""

    tenant: str
    key_id: str
    scopes: frozenset[Scope]

    def needs(self, scope: Scope) -> None:
        """Raises Forbidden unless the key carries `scope`."""
        if scope not in self.scopes:
            raise Forbidden(f"This key lacks the scope {scope}; ask for a key that has it.")

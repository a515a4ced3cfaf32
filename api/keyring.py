"""The keys that were used in the last second, so that a busy one is looked up once a second. Knows no HTTP."""

import logging
import time
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from db import tenants
from db.session import Database
from domain.access import Principal
from domain.ids import key_hash

log = logging.getLogger(__name__)

#: For so long a key that was revoked elsewhere goes on working here. One that expires ends on the instant.
KNOWN_S = 1.0
_MOST = 10_000


@dataclass(frozen=True)
class _Known:
    principal: Principal
    until: float


class Keyring:
    """Safe in any thread. Only live keys are remembered: a new one works at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, _Known] = {}

    def who(self, secret: str) -> tuple[Principal, bool]:
        """The caller, and whether this use is worth noting; Unauthorized unless the key is live."""
        digest = key_hash(secret)
        seen = self._seen(digest)
        if seen is not None:
            return seen, False
        asked_at = time.monotonic()
        with self._database.reading() as session:
            found = tenants.look_up(session, digest)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[digest] = _Known(found.principal, asked_at + min(KNOWN_S, found.lives_s))
        return found.principal, found.use_is_due

    def seen(self, secret: str) -> Principal | None:
        """The caller, if the key was looked up a moment ago."""
        return self._seen(key_hash(secret))

    def _seen(self, digest: str) -> Principal | None:
        known = self._known.get(digest)
        return known.principal if known is not None and time.monotonic() < known.until else None

    def forget(self) -> None:
        """A key was changed here: this process looks all of them up again."""
        self._known.clear()

    def note_use(self, key_id: str) -> None:
        """Keeps when the key was used, if the database has a moment. Nobody waits for it."""
        try:
            with self._database.transaction() as session:
                tenants.note_use(session, key_id)
        except SQLAlchemyError as error:
            log.debug("the last use of key %s was not noted (%s)", key_id, type(error).__name__)

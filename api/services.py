"""What every handler is given: the settings and the three stores behind the door. Knows no HTTP."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy.orm import Session

from api import audited
from api.keyring import Keyring
from api.listeners import Listeners
from api.rendered import Rendered
from api.waiting import Waiter, Waiting
from bus.limits import Limits
from db import at_once
from db.at_once import Rooms
from db.blobs import Blobs
from db.session import Database
from db.submissions import Submission
from domain.access import Principal
from domain.errors import Unavailable
from domain.job import Lane
from settings import Settings

log = logging.getLogger(__name__)


class Ringer(Protocol):
    """The part of `bus.bells.Bells` that the door uses; tests stand a recorder in its place."""

    def ring(self, lane: Lane) -> None: ...

    def poke(self, worker: str | None) -> None: ...

    def wake(self, job_id: str) -> None: ...

    def ready(self) -> bool: ...


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    blobs: Blobs
    bells: Ringer
    wakes: Waiter
    waiting: Waiting
    listeners: Listeners
    keyring: Keyring
    limits: Limits
    rendered: Rendered
    rooms: Rooms

    def drop(self, blob: str) -> None:
        """Deletes bytes that no row names. The request is not the worse for it if that fails: upkeep finds them."""
        with _left_to_upkeep(blob):
            self.blobs.delete(blob)

    def drop_of(self, owner: str) -> None:
        """The same with all the blobs of a job or an upload."""
        with _left_to_upkeep(owner):
            self.blobs.delete_of(owner)

    @contextmanager
    def change(self, who: Principal) -> Iterator[Session]:
        """The one transaction in which a request of `who` changes what is stored; its audit row is in it."""
        structlog.contextvars.bind_contextvars(tenant=who.tenant, key=who.key_id)
        with self.database.transaction() as session:
            yield session
            audited.write(session, who)

    def submitted(self, who: Principal, new: Submission) -> at_once.Made | None:
        """The same for a submit that breaks no rule; None, and nothing is changed, where that takes a closer look."""
        structlog.contextvars.bind_contextvars(tenant=who.tenant, key=who.key_id)
        return at_once.submit(self.database, new, audited.entry(who), self.rooms)


@contextmanager
def _left_to_upkeep(name: str) -> Iterator[None]:
    try:
        yield
    except (Unavailable, OSError) as error:
        log.warning("the bytes of %s are left to upkeep (%s)", name, type(error).__name__)

"""T1 for the submit that breaks no rule, which nearly all are: as few steps as there can be, and no lock on its tenant.

On PostgreSQL it is one statement and one round trip. On SQLite it is a look and an insert for each table, straight
through the driver. Whatever comes near a rule (a key that was used, a queue that is nearly full, a file that is not
there) writes nothing and is told by None; then `db.jobs.submit` goes step by step, and knows what is wrong.
"""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from db import submissions
from db import submit_statements as sql
from db.audit import new_audit_id
from db.session import Database
from db.submissions import Submission

#: A tenant whose queue has no more room than this is counted under the lock. As many submits may be in flight at
#: once: each has a connection, and a PostgreSQL server takes a hundred of them if nobody tells it otherwise.
SPARE = 100


class Rooms:
    """How many more jobs may wait, tenant by tenant: counted once a second instead of at every submit.

    Only where there is room for more than a tenant sends in a second. Of that this process gives an eighth away,
    since others do so as well; for the rest of the second it counts again at each submit.
    """

    KNOWN_S, LEAST, SHARE = 1.0, 2_000, 8

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Tenant -> until when (monotonic) it holds, and how many more may pass.
        self._known: dict[str, tuple[float, int]] = {}

    def takes_one(self, tenant: str) -> bool:
        """Whether there is room for a job, by what is known."""
        with self._lock:
            until, left = self._known.get(tenant, (0.0, 0))
            if left < 1 or time.monotonic() >= until:
                return False
            self._known[tenant] = until, left - 1
            return True

    def note(self, tenant: str, room: int, counted_at: float) -> None:
        """So much room was found at that instant (monotonic), or later."""
        with self._lock:
            until, _ = self._known.get(tenant, (0.0, 0))
            if counted_at >= until:
                share = (room - SPARE) // self.SHARE if room >= self.LEAST else 0
                self._known[tenant] = counted_at + self.KNOWN_S, share


@dataclass(frozen=True)
class Made:
    """The new job and how many stand before it in its lane."""

    #: As a `Job` to whoever reads its columns. To make one of those takes longer than to answer with it.
    job: Any
    position: int


def submit(database: Database, new: Submission, audit: Mapping[str, Any], rooms: Rooms) -> Made | None:
    """The new job with all that belongs to it, committed; None, and nothing is written, where that takes more looks.

    `audit` are the columns of its audit row but for the object.
    """
    if new.start is not None or (new.is_retry and new.key is None):
        return None
    began, is_known = time.monotonic(), rooms.takes_one(new.tenant)
    values = values_of(new, audit, room_is_known=is_known)
    found = (_on_sqlite if database.sqlite else _on_postgresql)(database, new, values)
    if found is None:
        return None
    created_at, available_at, position, room = found
    if room is not None:
        rooms.note(new.tenant, room, began)
    columns = submissions.columns_of(new, values, created_at=created_at, available_at=available_at)
    return Made(SimpleNamespace(**columns), int(position))


def values_of(new: Submission, audit: Mapping[str, Any], *, room_is_known: bool) -> dict[str, Any]:
    """What the statements take, but for the files."""
    values = submissions.values_of(new) | {f"audit_{name}": value for name, value in audit.items()}
    event = json.dumps({"state": submissions.FIRST["state"], "stage": values["stage"]})
    more = {"audit_id": new_audit_id(), "message": new.message, "event": event}
    return {**values, **more, "room_is_known": room_is_known, "spare": SPARE}


def _on_postgresql(database: Database, new: Submission, values: dict[str, Any]) -> Any:
    return database.write_one(sql.SUBMIT, {**values, "files": list(new.files), "many": len(new.files)})


def _on_sqlite(database: Database, new: Submission, values: dict[str, Any]) -> Any:
    values["files"] = json.dumps(list(new.files))
    with database.driving() as driver:
        instant, position, room, has_room, key_is_used, files = driver.run(sql.LOOK, values).fetchone()
        if not has_room or key_is_used or files != len(new.files):
            return None
        values["instant"] = instant
        for statement in (sql.JOB, sql.EVENT, sql.AUDIT):
            driver.run(statement, values)
        if new.files:
            driver.run(sql.FILES, values)
        if new.labels:
            driver.run(sql.LABELS, values)
    return instant, instant, position, room

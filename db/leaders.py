"""Who does a duty that one process at a time is enough for. A lease, by the database's clock.

Two that both believe they lead do no harm: what a leader does is guarded by itself. The lease saves work.
"""

from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from db.session import now
from db.tables import Leader
from db.upsert import insert


def lead(session: Session, duty: str, owner: str, ttl: float) -> bool:
    """Whether `owner` does the duty for the next `ttl` seconds: it is free, its own, or its holder is silent."""
    held = (
        insert(session, Leader)
        .values(duty=duty, owner=owner, until=now() + ttl)
        .on_conflict_do_update(
            index_elements=["duty"],
            set_={"owner": owner, "until": now() + ttl},
            where=or_(Leader.owner == owner, Leader.until < now()),
        )
        .returning(Leader.owner)
    )
    return session.scalar(held) is not None


def resign(session: Session, duty: str, owner: str) -> None:
    """The next who asks may have the duty at once."""
    session.execute(update(Leader).where(Leader.duty == duty, Leader.owner == owner).values(until=0.0))

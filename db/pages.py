"""One page of rows by the time at which they were made."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import Session

from db.tables import Table

T = TypeVar("T", bound=Table)


def newest_first(
    session: Session, query: Select[T], table: Any, mark: Any, limit: int
) -> tuple[Sequence[T], bool]:
    """At most `limit` rows of `query`, from behind the row `mark`; and whether there are more."""
    if mark is not None:
        query = query.where(tuple_(table.created_at, table.id) < tuple_(mark.created_at, mark.id))
    rows = session.scalars(query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit

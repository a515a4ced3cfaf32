"""Who looks after the rest: at most one process at a time."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Instant, Table


class Leader(Table):
    """One process a duty, until its lease runs out."""

    __tablename__ = "leaders"

    duty: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(200))
    until: Mapped[float] = mapped_column(Instant)

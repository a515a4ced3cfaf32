"""Changes a CHECK of a table, which SQLite can only do by building the table anew."""

from collections.abc import Callable

from alembic import op
from sqlalchemy import text


def rebuild(table: str, change: Callable[[str], str]) -> None:
    """Builds `table` anew from its own changed CREATE statement, with its rows and its indexes.

    Everything that reflection would lose (an index on `x DESC`, defaults) is kept, since the statements are
    those that SQLite stored. Foreign keys must be off (`db.migrate` sees to it); they are checked after.
    """
    connection = op.get_bind()
    stored = text("SELECT sql FROM sqlite_master WHERE tbl_name = :t AND type = :kind AND sql IS NOT NULL")
    create = str(connection.execute(stored, {"t": table, "kind": "table"}).scalar_one())
    indexes = list(connection.execute(stored, {"t": table, "kind": "index"}).scalars())
    _, opening, columns = create.partition("(")
    changed = change(opening + columns)
    if changed == opening + columns:
        raise ValueError(f"nothing of {table} was changed: {create}")
    op.execute(text(f"CREATE TABLE {table}_new {changed}".replace(":", "\\:")))
    op.execute(f"INSERT INTO {table}_new SELECT * FROM {table}")
    op.execute(f"DROP TABLE {table}")
    op.execute(f"ALTER TABLE {table}_new RENAME TO {table}")
    for index in indexes:
        op.execute(text(index.replace(":", "\\:")))
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise ValueError(f"rows that refer to nothing: {broken[:5]}")

"""`plait-server audit`: which key changed what."""

from pathlib import Path

import click

from db import audit
from ops.commands import DATA, GROUPS, JSON, Duration, database_of, print_rows
from ops.commands.keys import instant


@click.group(help=GROUPS["audit"])
def group() -> None:
    pass


@group.command("list")
@DATA
@click.option("--tenant", help="Only changes of this tenant's.")
@click.option("--since", type=Duration(), help="Only changes no older than this: 30m, 24h, 7d.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000), help="How many.")
@JSON
def list_(data: Path | None, tenant: str | None, since: float | None, limit: int, as_json: bool) -> None:
    """Changes, newest first: time, tenant, key, action, object, request, address."""
    with database_of(data) as database, database.reading() as session:
        rows = [
            {
                "created_at": instant(row.created_at),
                "tenant": row.tenant,
                "key": row.key,
                "action": row.action,
                "object_id": row.object_id,
                "request_id": row.request_id,
                "address": row.address,
            }
            for row in audit.latest(session, tenant=tenant, within_s=since, limit=limit)
        ]
    print_rows(rows, as_json)

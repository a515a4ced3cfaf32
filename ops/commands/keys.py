"""`plait-server keys`: made, listed, rotated, revoked."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from db import tables, tenants
from domain.access import USUAL_SCOPES, NewKey, Scope
from domain.shapes import parse
from domain.tenants import tenant_name
from ops.commands import DATA, GROUPS, JSON, Duration, database_of, print_rows

_ALL = "all"


@click.group(help=GROUPS["keys"])
def group() -> None:
    pass


def _scopes(_ctx: click.Context, _param: click.Parameter, value: str | None) -> list[Scope]:
    if value is None:
        return sorted(USUAL_SCOPES)
    words = [word.strip() for word in value.split(",") if word.strip()]
    try:
        return sorted(Scope) if words == [_ALL] else sorted({Scope(word) for word in words})
    except ValueError:
        raise click.BadParameter(f"write {_ALL}, or some of {','.join(sorted(Scope))}") from None


@group.command("create")
@DATA
@click.option("--name", default="key", show_default=True, help="What the key is for.")
@click.option("--tenant", default="default", show_default=True, help="Whose objects it opens; made if new.")
@click.option(
    "--scopes",
    callback=_scopes,
    help="What it may do: scopes, separated by commas, or `all`.  [default: all but keys:write]",
)
@click.option("--days", type=click.FloatRange(min=0), help="Expires after this many days.  [default: never]")
@JSON
def create(
    data: Path | None, name: str, tenant: str, scopes: list[Scope], days: float | None, as_json: bool
) -> None:
    """Make a key. It is shown once; only its hash is kept."""
    seconds = days * 86_400 if days is not None else None
    asked = parse(NewKey, {"name": name, "scopes": scopes, "expires_in_s": seconds})
    with database_of(data) as database, database.transaction() as session:
        tenants.ensure(session, tenant_name(tenant))
        row, secret = tenants.create_key(
            session, tenant, name=asked.name, scopes=scopes, expires_in_s=asked.expires_in_s
        )
    _show(row, secret, as_json)


@group.command("list")
@DATA
@click.option("--tenant", help="Only keys of this tenant.")
@JSON
def list_(data: Path | None, tenant: str | None, as_json: bool) -> None:
    """Every key: id, tenant, name, last four characters, state, expiry, last use (to a minute), scopes.

    A key is live, rotated (live until it expires; another took its place), expired or revoked.
    """
    with database_of(data) as database, database.reading() as session:
        rows = [_fields(key) for key in tenants.keys(session, tenant)]
    print_rows(rows, as_json)


@group.command("rotate")
@DATA
@click.argument("key_id")
@click.option(
    "--grace", type=Duration(), default="24h", show_default=True, help="How long the old key goes on working."
)
@JSON
def rotate(data: Path | None, key_id: str, grace: float, as_json: bool) -> None:
    """Make a key in another's place: the same name, scopes and length of life.

    Both work until the grace is over; then the old one expires.
    """
    with database_of(data) as database, database.transaction() as session:
        row, secret = tenants.rotate(session, tenants.get_key(session, key_id), grace)
    _show(row, secret, as_json)


@group.command("revoke")
@DATA
@click.argument("key_id")
def revoke(data: Path | None, key_id: str) -> None:
    """Close a key. Running servers refuse it within a second."""
    with database_of(data) as database, database.transaction() as session:
        tenants.revoke(session, key_id)
    click.echo(f"{key_id} is revoked.")


def _show(row: tables.ApiKey, secret: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"id": row.id, "tenant": row.tenant, "api_key": secret}))
    else:
        click.echo(f"{secret}\n(id {row.id}; it cannot be shown again)")


def _fields(key: tables.ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "last4": key.last4,
        "state": tenants.state_of(key, time.time()),
        "expires_at": instant(key.expires_at),
        "last_used_at": instant(key.last_used_at),
        "scopes": key.scopes,
    }


def instant(seconds: float | None) -> str | None:
    """`2026-11-24T19:00:00Z`"""
    return (
        datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds is not None else None
    )

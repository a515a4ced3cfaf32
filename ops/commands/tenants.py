"""`plait-server tenants`: made, listed, shown, and their limits set."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from db import quotas, tables
from domain.tenants import tenant_name
from ops.commands import DATA, GROUPS, JSON, database_of, print_rows

_MOST = 2**31 - 1
_LIMITS = (
    click.option("--weight", type=click.IntRange(1, 1_000), help="Its share of the workers, beside others'."),
    click.option("--max-running", type=click.IntRange(0, _MOST), help="Most jobs that run, by lane."),
    click.option("--max-queued", type=click.IntRange(0, _MOST), help="Most jobs that wait or are paused."),
    click.option("--max-bytes", type=click.IntRange(0, 2**62), help="Most bytes of files."),
    click.option(
        "--requests-per-minute", type=click.IntRange(0, 1_000_000), help="Most requests; 0: no limit."
    ),
    click.option(
        "--request-burst", type=click.IntRange(0, 1_000_000), help="Most requests at once; 0: a minute's."
    ),
)


def _with_limits(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_LIMITS):
        command = option(command)
    return command


@click.group(help=GROUPS["tenants"])
def group() -> None:
    pass


@group.command("create")
@DATA
@click.argument("tenant")
@_with_limits
@JSON
def create(data: Path | None, tenant: str, as_json: bool, **limits: int | None) -> None:
    """Make a tenant; limits that are not given are the usual ones."""
    with database_of(data) as database, database.transaction() as session:
        quotas.create(session, tenant_name(tenant))
        row = quotas.set_limits(session, tenant, _given(limits))
    print_rows([_fields(row)], as_json)


@group.command("list")
@DATA
@JSON
def list_(data: Path | None, as_json: bool) -> None:
    """Every tenant: name, weight, most running, queued and bytes, requests a minute and at once (0: no limit)."""
    with database_of(data) as database, database.reading() as session:
        rows = [_fields(row) for row in quotas.all_of(session)]
    print_rows(rows, as_json)


@group.command("show")
@DATA
@click.argument("tenant")
@JSON
def show(data: Path | None, tenant: str, as_json: bool) -> None:
    """A tenant's limits and what it uses of them."""
    with database_of(data) as database, database.reading() as session:
        row = _fields(quotas.get(session, tenant))
        used = asdict(quotas.used(session, tenant))
    if as_json:
        print_rows([{**row, "used": used}], as_json)
        return
    for name, value in {**row, **{f"used {name}": n for name, n in used.items()}}.items():
        click.echo(f"{name:20} {value}")


@group.command("set")
@DATA
@click.argument("tenant")
@_with_limits
@JSON
def set_(data: Path | None, tenant: str, as_json: bool, **limits: int | None) -> None:
    """Change limits. They hold from the next submit, upload or claim; a rate of requests within a second."""
    with database_of(data) as database, database.transaction() as session:
        row = quotas.set_limits(session, tenant, _given(limits))
    print_rows([_fields(row)], as_json)


def _given(limits: dict[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in limits.items() if value is not None}


def _fields(row: tables.Quota) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "weight": row.weight,
        "max_running": row.max_running,
        "max_queued": row.max_queued,
        "max_bytes": row.max_bytes,
        "requests_per_minute": row.requests_per_minute,
        "request_burst": row.request_burst,
    }

"""The groups of `plait-server`, a module each, imported when they are used; and what all commands share."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

import settings as configuration

if TYPE_CHECKING:
    from db.session import Database

#: What the overview says of each group, so that it needs to import none.
GROUPS = {
    "audit": "See which key changed what.",
    "data": "Look through data before it is uploaded.",
    "datasets": "Sample data sets, made on this machine.",
    "encoders": "The mirror: pretrained encoders on this machine.",
    "keys": "Make, list, rotate and revoke API keys.",
    "tenants": "Make tenants and set their limits.",
}

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of everything that is kept.  [default: .plait, or PLAIT_DATA]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings_of(data: Path | None) -> configuration.Settings:
    return configuration.load(data=data)


@contextmanager
def database_of(data: Path | None) -> "Iterator[Database]":
    """The installation's database, which must be this version's."""
    from db import version
    from db.session import Database

    database = Database(settings_of(data).database)
    try:
        if not version.is_current(database):
            raise click.ClickException(
                "The database is absent or not migrated; run `plait-server migrate` first."
            )
        yield database
    finally:
        database.close()


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """As JSON, or as one line a row."""
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo("  ".join(_word(value) for value in row.values()))


def _word(value: Any) -> str:
    if value is None:
        return "-"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    # A name may be a stranger's choice: it must not move the cursor of an operator's terminal.
    return "".join(c if c.isprintable() else "?" for c in text)


class Duration(click.ParamType):
    """Seconds, written as `90s`, `30m`, `24h` or `7d`."""

    name = "duration"
    _SECONDS: ClassVar = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        number, unit = value[:-1], value[-1:]
        if unit not in self._SECONDS or not (number.isascii() and number.isdigit()):
            self.fail(f"{value!r} is no duration; write 90s, 30m, 24h or 7d", param, ctx)
        return float(number) * self._SECONDS[unit]

"""What is written for people and for programs. Text of the server never reaches a terminal unescaped."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from plait.errors import PlaitError
from plait.files import Progress as OnProgress


def clean(text: Any) -> str:
    """`text` on one line, its control characters shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def line(text: Any) -> None:
    click.echo(clean(text))


def note(text: Any) -> None:
    """A remark beside the data: on stderr."""
    click.echo(clean(text), err=True)


def data(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def json_line(value: Any) -> None:
    click.echo(json.dumps(value))


def error(what: PlaitError, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": what.as_dict()}), err=True)
        return
    first, *rest = what.lines()
    note(f"Error: {first}")
    for text in rest:
        note(text)


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns in line; nothing is cut, so that it can be piped."""
    cells = [[clean("" if value is None else value) for value in row] for row in (titles, *rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(titles))]
    for row in cells:
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def fields(values: Mapping[str, Any]) -> None:
    """One value a line; what is absent is left out."""
    for name, value in values.items():
        if value not in (None, "", [], {}):
            shown = json.dumps(value) if isinstance(value, (dict, list)) else value
            line(f"{name + ':':18}{shown}")


def when(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@contextmanager
def transfer(what: str) -> Iterator[OnProgress | None]:
    """A bar for bytes on their way, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(clean(what).replace("[", r"\["), total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total or None)

"""What is written for people and for programs. Text of the server never reaches a terminal unescaped."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from plait.errors import PlaitError
from plait.slices import Progress as OnProgress


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


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]], widths: Sequence[int] = ()) -> Sequence[int]:
    """Columns in line; nothing is cut, so that it can be piped. `widths`, once returned, goes on with a table."""
    cells = [[clean("" if value is None else value) for value in row] for row in (titles, *rows)]
    shown = cells[1:] if widths else cells
    widths = widths or [max(len(row[n]) for row in cells) for n in range(len(titles))]
    for row in shown:
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return widths


def fields(values: Mapping[str, Any]) -> None:
    """One value a line; what is absent is left out."""
    there = {name: value for name, value in values.items() if value not in (None, "", [], {})}
    width = max([18, *(len(name) + 2 for name in there)])
    for name, value in there.items():
        shown = json.dumps(value) if isinstance(value, (dict, list)) else value
        line(f"{name + ':':{width}}{shown}")


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


class Counter:
    """A bar that counts, or nothing where there is none to be seen."""

    def __init__(self, progress: Progress | None, total: int | None, what: str) -> None:
        self._progress = progress
        self._bar = progress.add_task(what, total=total) if progress else None

    def advance(self, count: int) -> None:
        if self._progress and self._bar is not None:
            self._progress.advance(self._bar, count)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Makes room for output that would else break into the bar."""
        if self._progress is None:
            yield
            return
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


@contextmanager
def counter(what: str, total: int | None) -> Iterator[Counter]:
    """Counts up to `total` on stderr, on a terminal only; None counts nothing."""
    console = Console(stderr=True)
    if total is None or not console.is_terminal:
        yield Counter(None, None, what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield Counter(progress, total, what)

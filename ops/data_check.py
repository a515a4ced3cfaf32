"""A check of data on this machine, before anything is uploaded: the code of the service's check, read and shown here."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from domain.checks import Check, Role
from domain.errors import BadRequest, InvalidSpec
from domain.manifest import TABULAR, Schema
from domain.shapes import parse
from domain.specs import Multimodal
from engine.data.check import Report, check
from engine.data.decoders.pool import Decoders
from engine.data.lengths import text_limits
from engine.data.manifest import Dataset, open_dataset, open_folder
from engine.data.media import Media
from engine.data.tables import printable
from engine.hub.mirror import resolve

#: Of more nobody reads a table; `--json` has them all.
MOST_SHOWN = 50


def look(path: Path, spec: Multimodal, *, role: Role, mirror: Path, local_roots: list[Path]) -> Report:
    """The check of a zip, a table or a folder with one; texts are measured where their encoder is in `mirror`."""

    def find(encoder: str) -> Path:
        return resolve(encoder, mirror=mirror, allow_hub=False, local_roots=local_roots)

    with (
        Decoders() as decoders,
        _open(path, spec.schema_, decoders.media) as dataset,
        _progress() as progress,
    ):
        types = {name: column.type for name, column in dataset.schema.columns.items()}
        limits = text_limits(spec, types, find)
        return check(dataset, spec, role=role, text_limits=limits, progress=progress)


def _open(path: Path, schema: Schema | None, media: Media) -> Dataset:
    if path.is_dir():
        return open_folder(path, schema=schema, media=media)
    return open_dataset(path, schema=schema, media=media)


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar for whoever watches; nothing in a pipe."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("Reading rows", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def spec_from(spec: Path | None, schema: Path | None) -> Multimodal:
    """The spec of two files; the schema's own file counts first. Raises BadRequest with all that is wrong."""
    written = _mapping(spec) if spec else {}
    # A whole job's body is as good as its `multimodal`.
    multimodal = written.get("multimodal", written)
    if schema and isinstance(multimodal, dict):
        multimodal = {**multimodal, "schema": _mapping(schema)}
    try:
        return parse(Check, {"multimodal": multimodal}).multimodal
    except InvalidSpec as error:
        problems = [f"  {problem['path']}: {problem['message']}" for problem in error.problems]
        raise BadRequest("\n".join(["The spec is wrong:", *problems])) from None


def _mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file's object; JSON is YAML, too."""
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadRequest(f"{path} is neither JSON nor YAML that can be read: {error}") from error
    if not isinstance(found, dict):
        raise BadRequest(f"{path} must hold an object, such as {{'columns': {{...}}}}")
    return found


def as_json(report: Report) -> str:
    return json.dumps({"issues": [issue.as_dict() for issue in report.issues.ordered()]})


def show(report: Report) -> None:
    """What the data are, and the first issues as a table, errors first."""
    console = Console(highlight=False)
    columns = ", ".join(f"{printable(name)} ({kind})" for name, kind in report.columns.items()) or "none"
    splits = ", ".join(f"{count} {split}" for split, count in report.counts.items())
    console.print(
        Text(f"{_counted(report.rows, 'row')}{f' ({splits})' if splits else ''}; columns: {columns}")
    )
    if TABULAR & set(report.columns.values()):
        # Of such columns some may have no tower; all others always have one, unless the spec names others.
        towers = ", ".join(printable(name) for name in sorted(report.used)) or "none"
        console.print(Text(f"towers: {towers}"))
    if report.classes:
        console.print(
            Text(
                f"{_counted(len(report.classes), 'class', 'es')}: {', '.join(map(printable, report.classes[:20]))}"
            )
        )
    issues = report.issues
    if issues:
        table = Table(box=None, pad_edge=False)
        for heading in ("line", "column", "severity", "code", "what to do"):
            table.add_column(heading, overflow="fold", no_wrap=heading in ("severity", "line"))
        for issue in islice(issues.ordered(), MOST_SHOWN):
            cells = (issue.line or "", issue.column or "", issue.severity, issue.code, issue.message)
            table.add_row(*(Text(printable(str(cell))) for cell in cells))
        console.print(table)
    if len(issues) > MOST_SHOWN:
        console.print(Text(f"... and {len(issues) - MOST_SHOWN} more; --json lists all."))
    errors = issues.errors
    console.print(Text(f"{_counted(errors, 'error')}, {_counted(len(issues) - errors, 'warning')}"))


def _counted(count: int, word: str, more: str = "s") -> str:
    return f"{count} {word}{'' if count == 1 else more}"

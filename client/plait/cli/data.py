"""`plait data`: says what is wrong with a data set before anything is trained on it."""

from pathlib import Path
from typing import Any

import click

from plait.checks import ROLES, Check, Issue
from plait.cli import ids, output, spec
from plait.cli.command import Group, connected, json_option
from plait.client import Client
from plait.errors import LocalFileError, PlaitError

_CLASSES_SHOWN = 20
#: Where a spec names a file of each role.
_FIELDS = {"training": "training_file", "validation": "validation_file", "test": "multimodal.test_file"}


@click.group(cls=Group)
def data() -> None:
    """Check data sets."""


@data.command()
@click.argument("path", shell_complete=ids.paths_or(ids.files))
@click.option(
    "--role", type=click.Choice(ROLES), default="training", show_default=True, help="What it is for."
)
@click.option(
    "-f",
    "--file",
    "spec_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The spec of the job to come, YAML or JSON: its multimodal part says what is read and how.",
)
@json_option
@click.pass_context
def check(ctx: click.Context, path: str, role: str, spec_file: Path | None, as_json: bool) -> None:
    """Send a data set and say what is wrong with it; nothing is trained.

    PATH is a folder, a zip, a .jsonl or .csv, or the id of a file that is on the server. Every row and every
    picture and sound is read. What was sent stays on the server if it is good, so that a job can name it; with
    errors it is deleted again. Ends with 1 if there is an error. With --json: {"issues": [...]}.

    \b
    plait data check data/
    plait data check data/ -f spec.yaml --json
    plait data check holdout.jsonl --role test
    """
    client = connected()
    wanted = _multimodal(spec_file)
    found = _checked(client, path, wanted, role)
    if found.status != "succeeded":
        raise CheckFailed(found)
    if as_json:
        output.data({"issues": [issue.raw for issue in found.issues]})
    else:
        _tell(found, _FIELDS[role], kept=found.is_good or not Path(path).exists())
    ctx.exit(1 if found.errors else 0)


class CheckFailed(PlaitError):
    """The check could not do its work; it says nothing of the data."""

    def __init__(self, check: Check) -> None:
        error = check.error or {}
        self.code = str(error.get("code") or f"check_{check.status}")
        message = f"{check.id} {check.status}: {error.get('message') or 'no reason given'} [{self.code}]"
        super().__init__(message, hint="Try again; `plait-server doctor` examines the server.")


def _checked(client: Client, path: str, wanted: dict[str, Any] | None, role: str) -> Check:
    local = Path(path).expanduser()
    if local.exists():
        with output.transfer(local.name) as on_progress:
            return client.data.check(local, wanted, role, on_progress=on_progress)
    if path.startswith("file-"):
        return client.data.complete(client.files.validate(path, wanted, role))
    raise LocalFileError(
        f"{path!r} is neither a file or folder here nor the id of an uploaded file (file-…).",
        hint="See the uploaded ones with `plait files list`.",
    )


def _multimodal(spec_file: Path | None) -> dict[str, Any] | None:
    """The part of a create body that a check needs; a file may also hold that part alone."""
    if spec_file is None:
        return None
    body = spec.read(spec_file)
    if "multimodal" not in body:
        return None if {"model", "training_file"} & set(body) else body
    part = body["multimodal"]
    if not isinstance(part, dict):
        raise LocalFileError(f"{spec_file}: multimodal must be a mapping.")
    return part


def _tell(check: Check, field: str, *, kept: bool) -> None:
    if check.issues:
        rows = [(i.severity, i.code, _place(i), i.message) for i in check.issues]
        output.table(("SEVERITY", "CODE", "WHERE", "WHAT"), rows)
    _tell_how_read(check)
    told = f"{_count(check.rows, 'row')}: " if check.rows is not None else ""
    output.line(f"{told}{_count(check.errors, 'error')}, {_count(check.warnings, 'warning')}.")
    if not check.errors and kept:
        output.line(f"Use it without sending it again: {field}: {check.file}")


def _tell_how_read(check: Check) -> None:
    """What was made of columns and labels: a wrong guess is no issue, and must be seen all the same."""
    if isinstance(check.columns, dict) and check.columns:
        output.line(
            "Columns: " + ", ".join(f"{name} ({kind})" for name, kind in sorted(check.columns.items()))
        )
    if check.classes:
        more = ", ..." if len(check.classes) > _CLASSES_SHOWN else ""
        named = ", ".join(map(str, check.classes[:_CLASSES_SHOWN])) + more
        output.line(f"{_count(len(check.classes), 'class', 'es')}: {named}")


def _place(issue: Issue) -> str:
    """`line 17, column image`, as far as known; else the field of the spec."""
    places = [
        f"{name} {at}" for name, at in (("line", issue.line), ("column", issue.column)) if at is not None
    ]
    return ", ".join(places) or issue.param or ""


def _count(count: int, noun: str, more: str = "s") -> str:
    return f"{count} {noun}" + ("" if count == 1 else more)

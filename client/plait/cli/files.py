"""`plait files`: send, list, fetch and delete files."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import click

from plait.cli import ids, output, spec
from plait.cli.command import Group, connected, json_option, limit_option
from plait.client import Client
from plait.errors import LocalFileError
from plait.files import File


@click.group(cls=Group)
def files() -> None:
    """Send data to the server, fetch results."""


@files.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--purpose", default="fine-tune", show_default=True, help="What the file is for.")
@click.option(
    "--schema",
    "schema_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML or JSON file that names columns, label, id, split and group.  [default: inferred]",
)
@json_option
def push(path: Path, purpose: str, schema_file: Path | None, as_json: bool) -> None:
    """Send a file, or a folder as a zip.

    A data set is a folder (or zip) with metadata.jsonl (.csv, .parquet) beside its media, a folder of class
    folders, or one .jsonl, .csv or .parquet file.
    Names that begin with a dot and symbolic links are not sent.

    \b
    plait files push data/
    plait files push reviews.jsonl --schema schema.yaml --json
    """
    schema = spec.read(schema_file) if schema_file else None
    with output.transfer(path.name) as on_progress:
        file = connected().files.push(path, purpose, schema, on_progress=on_progress)
    _tell(file, as_json)


@files.command("list")
@click.option("--purpose", help="Only files sent for this.")
@limit_option
@json_option
def list_files(purpose: str | None, limit: int, as_json: bool) -> None:
    """List files, newest first.

    \b
    plait files list --purpose fine-tune --limit 5
    """
    found = list(connected().files.list(limit=limit, purpose=purpose))
    if as_json:
        output.data([file.raw for file in found])
        return
    rows = [
        (f.id, f.filename, output.size(f.bytes), f.purpose, f.status, output.when(f.created_at))
        for f in found
    ]
    output.table(("ID", "NAME", "SIZE", "PURPOSE", "STATUS", "CREATED"), rows)


@files.command()
@click.argument("file_id", shell_complete=ids.files)
@json_option
def show(file_id: str, as_json: bool) -> None:
    """Print what the server knows of a file.

    \b
    plait files show file-1a2b
    """
    _tell(connected().files.get(file_id), as_json)


@files.command()
@click.argument("file_id", shell_complete=ids.files)
@json_option
def delete(file_id: str, as_json: bool) -> None:
    """Delete a file from the server, for good.

    \b
    plait files delete file-1a2b
    """
    connected().files.delete(file_id)
    if as_json:
        output.data({"id": file_id, "object": "file", "deleted": True})
    else:
        output.line(f"{file_id} is deleted.")


@files.command()
@click.argument("file_id", shell_complete=ids.files)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, allow_dash=True),
    help="File or folder to write to, - for stdout.  [default: the file's own name, here]",
)
def download(file_id: str, out: Path | None) -> None:
    """Fetch a file's bytes.

    \b
    plait files download file-abc
    plait files download file-abc -o - | head
    """
    client = connected()
    if out is not None and str(out) == "-":
        click.echo(client.files.content(file_id), nl=False)
        return
    target = target_of(client, file_id, out)
    with output.transfer(target.name) as on_progress:
        client.files.download(file_id, target, on_progress=on_progress)
    output.line(f"{file_id} is in {target} ({output.size(target.stat().st_size)}).")


def target_of(client: Client, file_id: str, out: Path | None) -> Path:
    """Where to write: a name that the server chose stays in the folder and replaces nothing."""
    if out is not None and not out.is_dir():
        return out
    name = PureWindowsPath(PurePosixPath(client.files.get(file_id).filename).name).name
    name = "".join(c for c in name if c.isprintable()).lstrip(".") or file_id
    target = (out or Path()) / name
    if target.exists():
        raise LocalFileError(f"{target} is there already.", hint="Name the file to write with -o.")
    return target


def _tell(file: File, as_json: bool) -> None:
    if as_json:
        output.data(file.raw)
        return
    known: dict[str, Any] = {
        "id": file.id,
        "name": file.filename,
        "size": output.size(file.bytes),
        "purpose": file.purpose,
        "status": file.status,
        "created": output.when(file.created_at),
    }
    known |= {name: file.raw.get(name) for name in ("rows", "columns", "issues")}
    output.fields(known)

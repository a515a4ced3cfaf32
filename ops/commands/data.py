"""`plait-server data`: looked through as a job would."""

import sys
from pathlib import Path
from typing import Any

import click

from ops import data_check
from ops.commands import DATA, GROUPS, JSON, settings_of


@click.group(help=GROUPS["data"])
def group() -> None:
    pass


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@group.command("check")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--role",
    type=click.Choice(["training", "validation", "test"]),
    default="training",
    show_default=True,
    help="The part that PATH would play in a job.",
)
@click.option("--spec", type=_FILE, help="The job's `multimodal` (or its whole body), as YAML or JSON.")
@click.option("--schema", type=_FILE, help="The columns' types, label and so on, as YAML or JSON.")
@DATA
@JSON
def check_data(
    path: Path, role: Any, spec: Path | None, schema: Path | None, data: Path | None, as_json: bool
) -> None:
    """Read every row and every picture and sound of PATH, and list what is wrong.

    PATH is a zip, a .jsonl, .csv or .parquet table, a folder with metadata.jsonl (.csv, .parquet) beside its
    media, or a folder of class folders (a folder is read in place; links that lead out of it are refused).
    Nothing is uploaded, no server is asked.
    Exit code 1 if there is an error; warnings alone give 0.

    \b
    A zip, as a training file:       plait-server data check train.zip
    With the spec of the job:        plait-server data check train.zip --spec job.yaml
    For a program:                   plait-server data check train.zip --json
                                     prints {"issues": [{"line", "column", "code", "message", "severity", ...}]}
    """
    settings = settings_of(data)
    report = data_check.look(
        path,
        data_check.spec_from(spec, schema),
        role=role,
        mirror=settings.encoders_dir,
        local_roots=list(settings.local_roots),
    )
    if as_json:
        click.echo(data_check.as_json(report))
    else:
        data_check.show(report)
    sys.exit(1 if report.issues.errors else 0)

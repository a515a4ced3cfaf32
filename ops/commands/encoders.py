"""`plait-server encoders`: the mirror, filled and looked at."""

from pathlib import Path

import click

import telemetry
from engine.hub import mirror
from ops.commands import DATA, JSON, print_rows, settings_of


@click.group()
def group() -> None:
    """The mirror: pretrained encoders on this machine, in Hugging Face format."""


@group.command("pull")
@DATA
@click.argument("ids", nargs=-1)
def pull_encoders(data: Path | None, ids: tuple[str, ...]) -> None:
    """Fetch encoders into the mirror, each file checked by its SHA-256.

    Without IDS: the default encoders for text, images (and films) and sound. A language model, such as
    HuggingFaceTB/SmolLM2-135M-Instruct, is fetched when it is named.
    """
    settings = settings_of(data)
    telemetry.setup("warning")
    for id_, folder in mirror.pull(
        ids or mirror.defaults(), mirror=settings.encoders_dir, progress=click.echo
    ).items():
        click.echo(f"{id_}  {folder}")


@group.command("list")
@DATA
@JSON
def list_encoders(data: Path | None, as_json: bool) -> None:
    """What the mirror holds."""
    held = mirror.listing(settings_of(data).encoders_dir)
    print_rows([{"id": id_, "folder": str(folder)} for id_, folder in held.items()], as_json)

"""`plait models`: what there is to start from and what was made."""

import click

from plait.cli import output
from plait.cli.command import Group, connected, json_option


@click.group(cls=Group)
def models() -> None:
    """List models."""


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List model families and fine-tuned models."""
    found = list(connected().models.list())
    if as_json:
        output.data([model.raw for model in found])
        return
    rows = [(m.id, m.owned_by, output.when(m.created)) for m in found]
    output.table(("ID", "OWNER", "CREATED"), rows)

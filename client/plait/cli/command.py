"""What all commands share: the client, `--json`, and how a PlaitError ends them."""

from typing import Any

import click

from plait.cli import output
from plait.client import Client
from plait.errors import PlaitError

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit_option = click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(min=1), help="Print at most this many."
)


class Command(click.Command):
    """Tells a PlaitError on stderr and ends with exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PlaitError as error:
            output.error(error, as_json=bool(ctx.params.get("as_json")))
            ctx.exit(1)


class Group(click.Group):
    command_class = Command
    group_class = type


def connected() -> Client:
    """The client of this run, made when a command first needs it."""
    root = click.get_current_context().find_root()
    if root.obj is None:
        root.obj = root.with_resource(Client())
    client: Client = root.obj
    return client

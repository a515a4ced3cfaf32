"""The command line `plait`: thin commands over the SDK."""

import click

from plait.cli.command import Group
from plait.cli.files import files
from plait.cli.jobs import jobs
from plait.cli.models import models
from plait.version import VERSION


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, package_name="plait")
def main() -> None:
    """Fine-tune multimodal models on a Plait server.

    \b
    Send data:            plait files push data/
    Fine-tune, follow:    plait jobs create -f spec.yaml --watch
    See what there is:    plait jobs list

    The server and the key: PLAIT_BASE_URL and PLAIT_API_KEY, else the nearest .plait/plait.json or plait.json
    upwards from here, which `plait-server up` writes. Exit codes: 0 done, 1 failed, 2 wrong usage,
    3 the watched job was cancelled.
    """


@main.command()
def version() -> None:
    """Print the version of this client."""
    click.echo(VERSION)


main.add_command(files)
main.add_command(jobs)
main.add_command(models)

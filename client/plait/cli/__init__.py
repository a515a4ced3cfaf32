"""The command line `plait`: thin commands over the SDK."""

import click

from plait.cli.command import Group
from plait.cli.completion import completion
from plait.cli.data import data
from plait.cli.files import files
from plait.cli.jobs import jobs
from plait.cli.models import models
from plait.cli.predict import predict
from plait.cli.training import checkpoints, logs, metrics
from plait.cli.webhooks import webhooks
from plait.version import VERSION


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, package_name="plait")
def main() -> None:
    """Fine-tune multimodal models on a Plait server, and ask them.

    \b
    Look for mistakes:    plait data check data/
    Fine-tune, follow:    plait jobs create -f spec.yaml --watch
    Ask the model:        plait predict ft:late-fusion:default::1a2b -i image=@seven.png
    See what there is:    plait jobs list; plait models list; plait files list
    Complete with Tab:    plait completion bash

    The server and the key: PLAIT_BASE_URL and PLAIT_API_KEY, else the nearest .plait/plait.json or plait.json
    upwards from here, which `plait-server up` writes. Exit codes: 0 done, 1 failed, 2 wrong usage,
    3 the watched job was cancelled.
    """


@main.command()
def version() -> None:
    """Print the version of this client."""
    click.echo(VERSION)


for _command in (completion, data, files, jobs, models, predict, webhooks):
    main.add_command(_command)
for _command in (checkpoints, logs, metrics):
    jobs.add_command(_command)

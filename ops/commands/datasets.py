"""`plait-server datasets`: sample data sets. Building one loads what makes pictures and sound; help does not."""

from pathlib import Path

import click

from ops.commands import GROUPS


@click.group(help=GROUPS["datasets"])
def group() -> None:
    pass


@group.command("build")
@click.argument("name", type=click.Choice(["av-digits"]), expose_value=False)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to."
)
@click.option("--seed", default=0, show_default=True)
def build_dataset(out: Path, seed: int) -> None:
    """Build a data set (seeded: the same seed gives the same bytes); a finished one is kept."""
    from engine.samples import av_digits

    click.echo(av_digits.build(out, seed=seed, progress=click.echo))

"""`plait-server datasets`: sample data sets. Building one loads what makes pictures and sound; help does not."""

from pathlib import Path
from typing import Any

import click

from ops.commands import GROUPS


@click.group(help=GROUPS["datasets"])
def group() -> None:
    pass


@group.command("build")
@click.argument("name", type=click.Choice(["av-digits", "moving-av-digits", "emoji", "tuxpaint"]))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Rows, at most; all if not said.")
@click.option(
    "--label",
    type=click.Choice(["digit", "direction", "both"]),
    help="Of moving-av-digits: what is to be learned; both if not said.",
)
@click.option(
    "--package",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Of tuxpaint: the file of Debian's tuxpaint-stamps-default; fetched by apt-get if not said.",
)
def build_dataset(
    name: str, out: Path, seed: int, limit: int | None, label: Any, package: Path | None
) -> None:
    """Build a data set (seeded: the same options give the same bytes); a finished one is kept.

    av-digits are pictures and sounds of digits, moving-av-digits films of them that move, with sound; emoji are
    pictures with their names, fetched by npm; tuxpaint are pictures of things, described in English and spoken of in
    Spanish.
    """
    from engine.samples import av_digits, emoji, moving_av_digits, tuxpaint

    if label and name != "moving-av-digits":
        raise click.UsageError("--label is for moving-av-digits; other sets have one label")
    if package and name != "tuxpaint":
        raise click.UsageError("--package is for tuxpaint; the others need none")
    if name == "moving-av-digits":
        recipe = moving_av_digits.Recipe(seed, limit, label or "both")
        made = moving_av_digits.build(out, recipe, progress=click.echo)
    elif name == "emoji":
        made = emoji.build(out, seed=seed, limit=limit, progress=click.echo)
    elif name == "tuxpaint":
        made = tuxpaint.build(out, seed=seed, limit=limit, package=package, progress=click.echo)
    else:
        made = av_digits.build(out, seed=seed, limit=limit, progress=click.echo)
    click.echo(made)

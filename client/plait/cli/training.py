"""What a training left behind: `plait jobs checkpoints`, `metrics` and `logs`."""

import math

import click
from rich.console import Console

from plait.cli import charts, ids, output
from plait.cli.command import Command, connected, json_option, limit_option
from plait.job_shapes import Series

_fine_tune = click.argument("job_id", shell_complete=ids.fine_tunes)
_CHART_HEIGHT, _WIDEST_CHART = 8, 100


@click.command(cls=Command)
@_fine_tune
@limit_option
@json_option
def checkpoints(job_id: str, limit: int, as_json: bool) -> None:
    """List the checkpoints of a fine-tune, newest first, with what was measured there. Those that are kept can be
    named in a new job's resume_from_checkpoint.

    \b
    plait jobs checkpoints ftjob-1a2b
    """
    found = list(connected().jobs.checkpoints(job_id, limit=limit))
    if as_json:
        output.data([one.raw for one in found])
        return
    names = sorted({name for one in found for name in one.metrics})
    rows = [
        (
            one.step,
            output.when(one.created_at),
            *(output.number(one.metrics.get(n, "")) for n in names),
            "" if one.available is None else "yes" if one.available else "no",
            one.id,
        )
        for one in found
    ]
    output.table(("STEP", "CREATED", *(name.upper() for name in names), "KEPT", "ID"), rows)


@click.command(cls=Command)
@_fine_tune
@click.option("--name", "names", multiple=True, help="Only this metric; repeat it.  [default: all]")
@click.option(
    "--points", type=click.IntRange(min=2), help="At most so many points a curve.  [default: the server's]"
)
@json_option
def metrics(job_id: str, names: tuple[str, ...], points: int | None, as_json: bool) -> None:
    """Print what was measured while a fine-tune ran: a table, drawn curves for --name on a terminal, or JSON.

    \b
    plait jobs metrics ftjob-1a2b
    plait jobs metrics ftjob-1a2b --name train_loss --name valid_accuracy
    plait jobs metrics ftjob-1a2b --json | jq .train_loss.values
    """
    found = connected().jobs.metrics(job_id, names, max_points=points)
    if strange := sorted(set(names) - set(found)):
        output.note(f"Not measured: {', '.join(strange)}. Without --name every metric is listed.")
    if as_json:
        output.data({name: series._asdict() for name, series in found.items()})
        return
    console = Console()
    if names and console.is_terminal:
        for name, series in found.items():
            width = min(console.width, _WIDEST_CHART)
            console.print(charts.chart(name, series, width, _CHART_HEIGHT))
        return
    titles = ("METRIC", "POINTS", "FIRST", "LAST", "LEAST", "LARGEST")
    output.table(titles, [(name, *_summary(series)) for name, series in sorted(found.items())])


def _summary(series: Series) -> tuple[str, ...]:
    real = [value for value in series.values if math.isfinite(value)]
    if not real:
        return (str(len(series.values)), "", "", "", "")
    ends = (series.values[0], series.values[-1], min(real), max(real))
    return (str(len(series.values)), *map(charts.short, ends))


@click.command(cls=Command)
@_fine_tune
@click.option(
    "--tail", type=click.IntRange(min=1), help="At most so many lines.  [default: the server's, 200]"
)
@json_option
def logs(job_id: str, tail: int | None, as_json: bool) -> None:
    """Print what the processes of a fine-tune wrote, attempt by attempt.

    \b
    plait jobs logs ftjob-1a2b
    plait jobs logs ftjob-1a2b --tail 1000 | less
    """
    found = connected().jobs.logs(job_id, tail=tail)
    if as_json:
        output.data([{"attempt_fence": one.fence, "text": one.text} for one in found])
        return
    if not found:
        output.note("Its processes have written nothing.")
    for one in found:
        output.note(f"-- attempt with fence {one.fence} --")
        for text in one.text.removesuffix("\n").split("\n"):
            output.line(text.expandtabs())

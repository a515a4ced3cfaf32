"""A job on a terminal: its messages above, a bar with its numbers and the curves of its training below."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from plait.cli import charts, output
from plait.cli.view import View, event_line, facts
from plait.client import Client
from plait.errors import PlaitAPIError, PlaitError
from plait.job_shapes import Event, Job, Series, Update

#: Smaller terminals get the bar alone; one chart needs so much room.
_CHART_WIDTH, _LEAST_HEIGHT = 36, 14
_WIDEST, _MOST_POINTS = 76, 200
_TRAIN_LOSS = "train_loss"


class Curves:
    """The training loss and the metric that picks the best checkpoint, as far as measured."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client, self._job_id = client, job_id
        self._may_ask = True
        self._at: tuple[int, int] | None = None
        self.series: dict[str, Series] = {}

    @property
    def last_loss(self) -> float | None:
        loss = self.series.get(_TRAIN_LOSS)
        return loss.values[-1] if loss and loss.values else None

    def follow(self, update: Update) -> None:
        """Asks for the curves when there is more to be seen; of an older server they are the events' numbers."""
        measured = [event for event in update.events if event.type == "metrics"]
        at = (update.job.progress.get("step") or 0, len(measured))
        if not measured and (self._at == at or not at[0]):
            return
        self._at = at
        if not (self._may_ask and self._ask(update.job)):
            self._gather(measured, update.job)

    def _ask(self, job: Job) -> bool:
        try:
            names = (_TRAIN_LOSS, validation_metric(job))
            found = self._client.jobs.metrics(self._job_id, names, max_points=_MOST_POINTS)
        except PlaitError as error:
            # Curves are no reason to end a watch: a server that is gone is the watch's concern.
            self._may_ask = not (isinstance(error, PlaitAPIError) and error.status < 500)
            return False
        self.series |= {name: found[name] for name in names if name in found and found[name].values}
        return True

    def _gather(self, measured: list[Event], job: Job) -> None:
        for event in measured:
            for name in (_TRAIN_LOSS, validation_metric(job)):
                value = event.data.get(name)
                if isinstance(value, (int, float)):
                    series = self.series.setdefault(name, Series([], []))
                    step = job.progress.get("step") or len(series.steps)
                    series.steps.append(step)
                    series.values.append(float(value))


def validation_metric(job: Job) -> str:
    """The name of the metric that picks the best checkpoint."""
    hyper = (job.raw.get("multimodal") or {}).get("hyperparameters") or {}
    name = str(hyper.get("metric_for_best_model") or "loss")
    return name if name.startswith("valid_") else f"valid_{name}"


class Dashboard:
    """What is redrawn: it measures the terminal anew each time, so it follows a change of its size."""

    def __init__(self, bars: Progress, curves: Curves) -> None:
        self._bars, self._curves = bars, curves

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Where only one has room, the validation's is shown: it says more.
        series = dict(list(self._curves.series.items())[-max(options.max_width // _CHART_WIDTH, 1) :])
        room = options.max_width // max(len(series), 1)
        if series and room >= _CHART_WIDTH and console.size.height >= _LEAST_HEIGHT:
            height = min(6, (console.size.height - 8) // 2)
            row = Table.grid(padding=(0, 2))
            styles = ("cyan", "green")
            drawn = zip(series.items(), styles, strict=False)
            row.add_row(
                *(
                    charts.chart(name, one, min(room - 4, _WIDEST), height, style)
                    for (name, one), style in drawn
                )
            )
            yield row
        yield self._bars


@contextmanager
def live(console: Console, client: Client, job_id: str) -> Iterator[View]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[facts]}", markup=False),
    )
    bars, curves = Progress(*columns, console=console), Curves(client, job_id)
    bar = bars.add_task("", total=None, facts="")

    def above(text: str) -> None:
        # The console that owns the display makes room for the line; any other writer would break into it.
        console.print(output.clean(text), markup=False, emoji=False, highlight=False, soft_wrap=True)

    def show(update: Update) -> None:
        for event in update.events:
            if event.type != "metrics":
                above(event_line(event))
        curves.follow(update)
        progress = update.job.progress
        stage = output.clean(progress.get("stage") or update.job.status)
        # The bar takes what is left: it can be short, and the numbers must not be cut.
        room = console.width - len(stage) - 4
        bars.update(
            bar,
            description=stage,
            total=progress.get("total_steps") or None,
            completed=progress.get("step") or 0,
            facts=output.clean(facts(progress, curves.last_loss, room)),
        )

    with Live(Dashboard(bars, curves), console=console, transient=True):
        yield View(show, above)

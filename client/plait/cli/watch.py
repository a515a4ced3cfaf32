"""Shows a job as it goes: a bar on a terminal, lines elsewhere, or JSON lines; and how it ended."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from plait.cli import output
from plait.client import Client
from plait.errors import PlaitError
from plait.jobs import Event, Job, Update

EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 3}
_INTERRUPTED = 130


class View(NamedTuple):
    """Where a watch is seen."""

    show: Callable[[Update], None]
    note: Callable[[str], None]


def follow(client: Client, job_id: str, *, as_json: bool) -> int:
    """Watches to the end, and returns the exit code."""
    events: list[Event] = []
    try:
        with _view(as_json) as view:
            outage = _Outage(view.note)
            for update in client.jobs.watch(job_id, on_trouble=outage):
                outage.over()
                view.show(update)
                job = update.job
                events += update.events
    except KeyboardInterrupt:
        output.note(
            f"The job goes on. Return: plait jobs watch {job_id}   End it: plait jobs cancel {job_id}"
        )
        return _INTERRUPTED
    if as_json:
        output.json_line(job.raw)
    else:
        conclude(job, events)
    return EXIT_CODES[job.status]


def conclude(job: Job, events: list[Event]) -> None:
    """How the job ended: its numbers, or what went wrong with each issue."""
    if job.status == "failed":
        tell_failure(job, events)
        return
    output.line(f"{job.id} {job.status}.")
    if job.metrics:
        output.table(
            ("METRIC", "VALUE"), [(name, output.number(job.metrics[name])) for name in sorted(job.metrics)]
        )
    if job.fine_tuned_model:
        output.line(f"Model: {job.fine_tuned_model}")


def tell_failure(job: Job, events: list[Event]) -> None:
    """On stderr: the error, and every issue that the events name."""
    error = job.error or {}
    about = f" ({error['param']})" if error.get("param") else ""
    output.note(
        f"Error: {job.id} failed: {error.get('message', 'no reason given')} [{error.get('code')}]{about}"
    )
    for issue in (issue for event in events for issue in event.issues):
        output.note(f"  {issue_line(issue)}")
    for file_id in job.result_files:
        output.note(f"All details: plait files download {file_id}")


def issue_line(issue: dict[str, Any]) -> str:
    """`line 17, column image: message [code]`, with what is known of the place."""
    places = [f"{name} {issue[name]}" for name in ("line", "column") if issue.get(name) is not None]
    place = f"{', '.join(places)}: " if places else ""
    warning = "warning: " if issue.get("severity") == "warning" else ""
    return f"{warning}{place}{issue.get('message')} [{issue.get('code')}]"


def event_line(event: Event) -> str:
    level = "" if event.level == "info" else f"{event.level}: "
    return f"{time.strftime('%H:%M:%S', time.localtime(event.created_at))}  {level}{event.message}"


def facts(progress: dict[str, Any], loss: float | None) -> str:
    """What stands beside the bar: `epoch 2/5  step 60/150  412 samples/s  loss 0.1234  ETA 0:42`."""
    told = []
    for what, total in (("epoch", "n_epochs"), ("step", "total_steps")):
        if progress.get(what) is not None:
            told.append(f"{what} {progress[what]}" + (f"/{progress[total]}" if progress.get(total) else ""))
    if progress.get("samples_per_second"):
        told.append(f"{progress['samples_per_second']:.0f} samples/s")
    if loss is not None:
        told.append(f"loss {loss:.4f}")
    if progress.get("eta_s") is not None:
        minutes, seconds = divmod(round(progress["eta_s"]), 60)
        told.append(f"ETA {minutes}:{seconds:02}")
    return "  ".join(told)


def _view(as_json: bool) -> AbstractContextManager[View]:
    console = Console()
    if as_json:
        return nullcontext(View(_show_json, output.note))
    return _live(console) if console.is_terminal else nullcontext(View(_show_lines, output.note))


def _show_json(update: Update) -> None:
    for event in update.events:
        output.json_line(event.raw)


def _show_lines(update: Update) -> None:
    for event in update.events:
        output.line(event_line(event))


@contextmanager
def _live(console: Console) -> Iterator[View]:
    """A bar below the messages; the numbers of metrics events go into the bar."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[facts]}", markup=False),
    )

    def above(text: str) -> None:
        # The console that owns the bar makes room for the line; any other writer would break into it.
        console.print(output.clean(text), markup=False, highlight=False, soft_wrap=True)

    loss: float | None = None
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("", total=None, facts="")

        def show(update: Update) -> None:
            nonlocal loss
            for event in update.events:
                if event.type != "metrics":
                    above(event_line(event))
            losses = [e.data["train_loss"] for e in update.events if e.data.get("train_loss") is not None]
            loss = losses[-1] if losses else loss
            progress = update.job.progress
            bars.update(
                bar,
                description=output.clean(progress.get("stage") or update.job.status),
                total=progress.get("total_steps") or None,
                completed=progress.get("step") or 0,
                facts=output.clean(facts(progress, loss)),
            )

        yield View(show, above)


class _Outage:
    """Says once an outage that the server does not answer."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._told = False

    def __call__(self, error: PlaitError) -> None:
        if not self._told:
            self._note(f"{error.message} Trying again ...")
        self._told = True

    def over(self) -> None:
        self._told = False

"""Follows a job: live on a terminal, in lines elsewhere, or as JSON lines; and tells how it ended."""

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console

from plait.checks import Check
from plait.cli import output
from plait.cli.live import live
from plait.cli.view import View, event_line, issue_line
from plait.client import Client
from plait.errors import PlaitError
from plait.job_shapes import CHECK, Event, Job, Update

EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 3}
_INTERRUPTED = 130


def follow(client: Client, job_id: str, *, as_json: bool) -> int:
    """Watches to the end, and returns the exit code."""
    events: list[Event] = []
    try:
        with _view(client, job_id, as_json) as view:
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
    if job.kind == CHECK and job.status == "succeeded":
        found = Check.of(job.raw)
        output.line(
            f"Errors: {found.errors}, warnings: {found.warnings}. All of them: plait jobs show {job.id}"
        )
    if job.fine_tuned_model:
        output.line(f"Model: {job.fine_tuned_model}")
        output.line(f"Ask it: plait predict {job.fine_tuned_model} {_inputs(job)}")


def _inputs(job: Job) -> str:
    """How the columns that the model reads are given."""
    towers = (job.raw.get("multimodal") or {}).get("towers") or {}
    return " ".join(f"-i {shlex.quote(f'{column}=VALUE')}" for column in sorted(towers) or ("COLUMN",))


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


def _view(client: Client, job_id: str, as_json: bool) -> AbstractContextManager[View]:
    console = Console()
    if as_json:
        return nullcontext(View(_show_json, output.note))
    return (
        live(console, client, job_id) if console.is_terminal else nullcontext(View(_show_lines, output.note))
    )


def _show_json(update: Update) -> None:
    for event in update.events:
        output.json_line(event.raw)


def _show_lines(update: Update) -> None:
    for event in update.events:
        output.line(event_line(event))


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

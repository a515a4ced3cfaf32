"""`plait jobs`: make fine-tune jobs, follow and end them."""

from pathlib import Path
from typing import Any

import click

from plait.checks import Check
from plait.cli import ids, output, spec, watch
from plait.cli.command import Group, connected, json_option, limit_option
from plait.cli.files import target_of
from plait.cli.view import event_line, facts, issue_line
from plait.client import Client
from plait.job_shapes import CHECK, FINE_TUNE, KINDS, STATUSES, Job

_any_job = click.argument("job_id", shell_complete=ids.jobs)
_fine_tune = click.argument("job_id", shell_complete=ids.fine_tunes)


@click.group(cls=Group)
def jobs() -> None:
    """Make fine-tune jobs; list, follow and end jobs."""


@jobs.command()
@click.option(
    "-f",
    "--file",
    "spec_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="The spec, YAML or JSON; - for stdin.",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY.PATH=VALUE", help="Change one field of the spec."
)
@click.option("--watch", "watched", is_flag=True, help="Follow the job to its end.")
@json_option
@click.pass_context
def create(
    ctx: click.Context, spec_file: Path, assignments: tuple[str, ...], watched: bool, as_json: bool
) -> None:
    """Make a fine-tune job from a spec: the fields of the API's create call.

    training_file, validation_file and multimodal.test_file are ids of uploaded files, or paths of local files or
    folders (looked for beside the spec, then here), which are sent first.

    \b
    plait jobs create -f spec.yaml --watch
    plait jobs create -f spec.yaml --set multimodal.hyperparameters.n_epochs=3
    plait jobs create -f - --json < spec.yaml
    """
    client = connected()
    body = spec.read(spec_file)
    spec.override(body, assignments)
    folders = [Path()] if str(spec_file) == "-" else [spec_file.parent, Path()]
    spec.send_files(body, folders, lambda path: _send(client, path))
    job = client.jobs.create(body)
    if watched:
        output.note(f"{job.id} is made.")
        ctx.exit(watch.follow(client, job.id, as_json=as_json))
    if as_json:
        output.data(job.raw)
    else:
        output.line(f"{job.id} is made ({job.status}).")
        output.line(f"Follow it: plait jobs watch {job.id}")


def _send(client: Client, path: Path) -> str:
    kind = "folder" if path.is_dir() else "file"
    output.note(f"{path} is a local {kind}: sending it first.")
    with output.transfer(path.name) as on_progress:
        file = client.files.push(path, on_progress=on_progress)
    output.note(f"It is {file.id} now ({output.size(file.bytes)}).")
    return file.id


@jobs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs in this status.")
@click.option(
    "--kind",
    type=click.Choice((*KINDS, "all")),
    default=FINE_TUNE,
    show_default=True,
    help="Only this kind of job.",
)
@click.option(
    "--metadata", "pairs", multiple=True, metavar="KEY=VALUE", help="Only jobs with this metadata; repeat it."
)
@limit_option
@json_option
def list_jobs(status: str | None, kind: str, pairs: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List jobs, newest first.

    \b
    plait jobs list --status running --metadata team=birds
    plait jobs list --kind all --limit 100
    """
    wanted, metadata = None if kind == "all" else kind, _metadata(pairs)
    found = list(connected().jobs.list(kind=wanted, status=status, metadata=metadata, limit=limit))
    if as_json:
        output.data([job.raw for job in found])
        return
    rows = [
        (job.id, job.status, output.when(job.created_at), job.model, job.fine_tuned_model) for job in found
    ]
    output.table(("ID", "STATUS", "CREATED", "MODEL", "FINE-TUNED MODEL"), rows)


def _metadata(pairs: tuple[str, ...]) -> dict[str, str]:
    wanted = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{pair!r}: write it as KEY=VALUE.", param_hint="--metadata")
        wanted[key] = value
    return wanted


@jobs.command()
@_any_job
@json_option
def show(job_id: str, as_json: bool) -> None:
    """Print how a job stands; of a failed one, every issue.

    \b
    plait jobs show ftjob-1a2b
    plait jobs show ftjob-1a2b --json | jq .multimodal
    """
    client = connected()
    job = client.jobs.get(job_id)
    if as_json:
        output.data(job.raw)
        return
    output.fields(_known(job))
    if job.status == "failed":
        is_tuned = job.kind == FINE_TUNE
        watch.tell_failure(job, list(client.jobs.events(job_id, limit=20)) if is_tuned else [])
    if job.kind == CHECK:
        for issue in client.data.complete(Check.of(job.raw)).issues:
            output.line(issue_line(issue.raw))


def _known(job: Job) -> dict[str, Any]:
    known: dict[str, Any] = {
        "id": job.id,
        "kind": "" if job.kind == FINE_TUNE else job.kind,
        "status": job.status,
        "created": output.when(job.created_at),
        "finished": output.when(job.finished_at),
        "model": job.model,
        "training file": job.training_file,
        "validation file": job.validation_file,
        "progress": "" if job.is_final else facts(job.progress, None),
        "fine-tuned model": job.fine_tuned_model,
        "result files": ", ".join(job.result_files),
        "metadata": job.metadata,
    }
    return known | {name: output.number(value) for name, value in sorted(job.metrics.items())}


@jobs.command("watch")
@_any_job
@json_option
@click.pass_context
def watch_job(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Follow a job to its end; it survives restarts of the server, and Ctrl-C leaves the job alone.

    A terminal shows the curves of the training loss and of the validation metric; without one, each event is a
    line. With --json: each event as JSON on a line, then the job. Ends with 0 if the job succeeded, 1 if it failed,
    3 if it was cancelled.

    \b
    plait jobs watch ftjob-1a2b
    plait jobs watch ftjob-1a2b --json | jq -r .message
    """
    ctx.exit(watch.follow(connected(), job_id, as_json=as_json))


@jobs.command()
@_any_job
@json_option
def cancel(job_id: str, as_json: bool) -> None:
    """End a job of any kind; a running fine-tune keeps its last checkpoint.

    \b
    plait jobs cancel ftjob-1a2b
    """
    job = connected().jobs.cancel(job_id)
    if as_json:
        output.data(job.raw)
    else:
        output.line(
            f"{job.id} is asked to stop ({job.status})." if not job.is_final else f"{job.id} is {job.status}."
        )


@jobs.command()
@_any_job
@json_option
def pause(job_id: str, as_json: bool) -> None:
    """Put a job of any kind aside; a running fine-tune makes a checkpoint first.

    \b
    plait jobs pause ftjob-1a2b
    """
    job = connected().jobs.pause(job_id)
    if as_json:
        output.data(job.raw)
    elif job.status == "paused":
        output.line(f"{job.id} is paused. Go on with it: plait jobs resume {job.id}")
    else:
        output.line(f"{job.id} is asked to pause ({job.status}).")


@jobs.command()
@_any_job
@json_option
def resume(job_id: str, as_json: bool) -> None:
    """Let a paused job go on, from its last checkpoint if it has one.

    \b
    plait jobs resume ftjob-1a2b
    """
    job = connected().jobs.resume(job_id)
    output.data(job.raw) if as_json else output.line(f"{job.id} goes on ({job.status}).")


@jobs.command()
@_fine_tune
@limit_option
@json_option
def events(job_id: str, limit: int, as_json: bool) -> None:
    """Print the newest events of a fine-tune, oldest of them first.

    \b
    plait jobs events ftjob-1a2b --limit 100
    """
    found = list(connected().jobs.events(job_id, limit=limit))[::-1]
    if as_json:
        output.data([event.raw for event in found])
        return
    for event in found:
        output.line(event_line(event))
        for issue in event.issues:
            output.line(f"          {issue_line(issue)}")


@jobs.command()
@_any_job
@click.option(
    "-o",
    "--out",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder to fetch them to.  [default: they are only listed]",
)
@click.option("--name", "wanted", multiple=True, help="Only the file of this name; repeat it.")
@json_option
def results(job_id: str, out: Path | None, wanted: tuple[str, ...], as_json: bool) -> None:
    """List a job's result files, or fetch them: the report to look at, its numbers, the curves.

    \b
    plait jobs results ftjob-1a2b
    plait jobs results ftjob-1a2b -o . --name report.html
    """
    client = connected()
    found = [client.files.get(file_id) for file_id in client.jobs.get(job_id).result_files]
    if unknown := set(wanted) - {file.filename for file in found}:
        names = ", ".join(file.filename for file in found) or "none"
        raise click.BadParameter(f"'{min(unknown)}' is not among the job's: {names}.", param_hint="--name")
    chosen = [file for file in found if not wanted or file.filename in wanted]
    if as_json:
        output.data([file.raw for file in chosen])
    elif out is None:
        output.table(("ID", "NAME", "SIZE"), [(f.id, f.filename, output.size(f.bytes)) for f in chosen])
    for file in chosen if out is not None else ():
        target = client.files.download(file.id, target_of(client, file.id, out))
        output.note(f"{file.filename} is in {target}.")

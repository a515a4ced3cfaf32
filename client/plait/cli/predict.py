"""`plait predict`: asks a fine-tuned model about rows given here or in a file."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from plait.cli import answers, ids, output, rows
from plait.cli.command import Command, connected, json_option
from plait.client import Client
from plait.errors import LocalFileError, PlaitError
from plait.inputs import MOST_MEDIA, MOST_ROWS, Value, media_type, weight
from plait.job_shapes import Job
from plait.predictions import OnBadInput, Prediction, PredictionRun

#: Rows of one request together: bytes of text and of files, well below what the server takes, and files.
_MOST = (1024 * 1024, 32 * 1024 * 1024, MOST_MEDIA)
#: After so long without an answer the user is told that it is waited for.
QUIET_S = 10.0
_INTERRUPTED = 130


@click.command(cls=Command)
@click.argument("model", shell_complete=ids.tuned_models)
@click.option(
    "-i",
    "--input",
    "pairs",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="One column of a single row; repeat it.",
)
@click.option(
    "-f",
    "--file",
    "table",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Rows as JSONL or CSV, written as training data is; - for JSONL from stdin.",
)
@click.option(
    "--top-k",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="So many labels a row, likeliest first.",
)
@click.option("--mask", is_flag=True, help="Predict a row from its other columns where one cannot be read.")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the answers to this file, one JSON object a line.",
)
@json_option
@click.pass_context
def predict(
    ctx: click.Context,
    model: str,
    pairs: tuple[str, ...],
    table: Path | None,
    top_k: int,
    mask: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Predict one row (--input) or many (-f) with a fine-tuned model.

    A VALUE is text, or a picture or sound: @PATH, or a path with the extension of one that is there. @@ stands for
    an @ that begins a text. Any column may be left out. The media of a file of rows are named by paths relative to
    it (image_file_name is the column image).

    Prints a table, or with --json one answer a line, in the order of the rows. Ends with 1 if any row has an error.

    \b
    plait predict ft:late-fusion:default::1a2b -i image=@seven.png -i audio=@seven.wav --top-k 3
    plait predict ft:late-fusion:default::1a2b -i text="a seven"
    plait predict ft:late-fusion:default::1a2b -f rows.jsonl --json > answers.jsonl
    """
    if bool(pairs) == bool(table):
        raise click.UsageError("Give one row with --input COLUMN=VALUE, or a file of rows with -f.")
    client = connected()
    given = [single(pairs)] if table is None else _read(client, model, table, mask)
    ask: Callable[[Sequence[rows.Row]], PredictionRun] = lambda batch: _ask(  # noqa: E731
        client, model, batch, top_k, "mask" if mask else "error"
    )
    with _sink(out) as kept:
        show = answers.view(as_json=as_json, quiet=out is not None, single=len(given) == 1)
        wrong = _answer(given, ask, kept, show)
    if out:
        output.note(f"{len(given)} answers are in {out}.")
    if wrong:
        output.note(f"Error: {wrong} of {len(given)} rows have no answer.")
        ctx.exit(1)


def single(pairs: Sequence[str]) -> rows.Row:
    """The row of `column=VALUE` pairs."""
    row: rows.Row = {}
    for pair in pairs:
        column, equals, text = pair.partition("=")
        if not (column and equals):
            raise click.BadParameter(f"{pair!r}: write it as COLUMN=VALUE.", param_hint="--input")
        if column in row:
            raise click.BadParameter(f"{column!r} is given twice; a row has one.", param_hint="--input")
        row[column] = _value(text)
    return row


def _value(text: str) -> Value:
    if text.startswith("@@"):
        return text[1:]
    if text.startswith("@"):
        path = Path(text[1:]).expanduser()
        if not path.is_file():
            raise LocalFileError(
                f"There is no file {path}.", hint="A text that begins with @ is written with @@."
            )
        return path
    is_media = media_type(Path(text)).startswith(("image/", "audio/"))
    with contextlib.suppress(OSError, ValueError):
        if is_media and Path(text).is_file():
            return Path(text)
    return text


def _read(client: Client, model: str, table: Path, mask: bool) -> list[rows.Row]:
    return rows.read(table, _columns(client, model), mask=mask, tell=output.note)


def _columns(client: Client, model: str) -> list[str] | None:
    """The columns that the model reads, as the job that made it tells; None if that cannot be known."""
    made_by = client.models.get(model).raw.get("job")
    if not isinstance(made_by, str):
        return None
    try:
        job: Job = client.jobs.get(made_by)
    except PlaitError:
        return None
    towers = (job.raw.get("multimodal") or {}).get("towers")
    return sorted(towers) if isinstance(towers, dict) and towers else None


def _answer(
    given: Sequence[rows.Row],
    ask: Callable[[Sequence[rows.Row]], PredictionRun],
    kept: IO[str] | None,
    show: Callable[[list[Prediction]], None],
) -> int:
    """Asks batch by batch, shows and keeps the answers in order; how many rows have none."""
    wrong = done = 0
    with output.counter("rows", len(given) if len(given) > MOST_ROWS else None) as bar:
        for batch in batches(given):
            try:
                run = _settled(ask(batch))
            except PlaitError:
                if done:
                    output.note(f"{done} of {len(given)} rows were answered before this:")
                raise
            with bar.hidden():
                show(run.predictions)
            if kept:
                kept.writelines(json.dumps(one.raw) + "\n" for one in run.predictions)
                kept.flush()
            wrong += sum(one.error is not None for one in run.predictions)
            done += len(batch)
            bar.advance(len(batch))
    return wrong


def batches(given: Sequence[rows.Row]) -> Iterator[Sequence[rows.Row]]:
    """Cut where a request would hold too many rows, bytes or files; a single row goes alone, however large."""
    batch: list[rows.Row] = []
    held: tuple[int, ...] = (0, 0, 0)
    for row in given:
        more = weight(row)
        after: tuple[int, ...] = tuple(map(sum, zip(held, more, strict=True)))
        too_much = any(size > most for size, most in zip(after, _MOST, strict=True))
        if batch and (too_much or len(batch) == MOST_ROWS):
            yield batch
            batch, after = [], more
        batch.append(row)
        held = after
    if batch:
        yield batch


def _ask(
    client: Client, model: str, batch: Sequence[rows.Row], top_k: int, on_bad_input: OnBadInput
) -> PredictionRun:
    """One request, waited for to its end; an interrupted one is cancelled."""
    run = client.predictions.create(model, batch, top_k=top_k, on_bad_input=on_bad_input, wait=QUIET_S)
    if run.is_final:
        return run
    output.note(f"{run.id} is {run.status}; waiting for it ... (Ctrl-C cancels it)")
    try:
        return client.predictions.wait(run.id)
    except KeyboardInterrupt:
        with contextlib.suppress(PlaitError):
            client.predictions.cancel(run.id)
        output.note(f"{run.id} is cancelled.")
        raise click.exceptions.Exit(_INTERRUPTED) from None


def _settled(run: PredictionRun) -> PredictionRun:
    """A run that has answers; else a PlaitError that says why not."""
    if run.status == "succeeded":
        return run
    error: dict[str, Any] = run.error or {}
    raise PredictionFailed(run, error)


class PredictionFailed(PlaitError):
    """A whole request has no answers."""

    def __init__(self, run: PredictionRun, error: dict[str, Any]) -> None:
        self.code = str(error.get("code") or f"prediction_{run.status}")
        super().__init__(
            f"{run.id} {run.status}: {error.get('message') or 'no reason given'} [{self.code}]",
            hint="See the job with `plait jobs show " + run.id + "`.",
        )


@contextmanager
def _sink(out: Path | None) -> Iterator[IO[str] | None]:
    """The open file that keeps the answers. What was answered stays in it when a later batch fails."""
    if out is None:
        yield None
        return
    try:
        file = out.open("w", encoding="utf-8")
    except OSError as error:
        raise LocalFileError(f"{out} cannot be written: {error.strerror}.") from None
    with file:
        yield file

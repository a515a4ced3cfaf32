"""The operator's command line, `plait-server`. Each command loads only what it needs."""

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

import lifeline
import settings as configuration
import telemetry
from domain.errors import PlaitError
from domain.job import Lane

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of everything that is kept.  [default: .plait, or PLAIT_DATA]",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Commands(click.Group):
    """Turns what we know to go wrong into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (PlaitError, configuration.BadSetting) as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="plait-server")
def main() -> None:
    """Plait's server: fine-tunes and serves multimodal models as jobs.

    \b
    Start everything on this machine:   plait-server up
    Get the default encoders:           plait-server encoders pull
    See whether all is well:            plait-server doctor
    """


def _settings(data: Path | None = None) -> configuration.Settings:
    return configuration.load(data=data)


def _process(settings: configuration.Settings, sig: signal.Signals = signal.SIGTERM) -> None:
    """What every long-running process does first."""
    if settings.supervisor:
        lifeline.die_with_parent(settings.supervisor, sig)
    telemetry.setup(settings.log_level)


def _lanes(_ctx: click.Context, _param: click.Parameter, value: str) -> dict[Lane, int]:
    try:
        pairs = [part.split("=") for part in value.split(",") if part]
        counts = {Lane(lane.strip()): int(count) for lane, count in pairs}
    except ValueError:
        lanes = ", ".join(Lane)
        raise click.BadParameter(f"write lane=count,…  with lanes of {lanes}, as in cpu=1,train=2") from None
    if any(not 0 <= count <= 64 for count in counts.values()):
        raise click.BadParameter("a lane takes 0 to 64 workers")
    return counts


@main.command()
@_DATA
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free port."
)
@click.option(
    "--workers",
    default="cpu=1,train=1,infer=1",
    show_default=True,
    callback=_lanes,
    help="Worker processes a lane.",
)
def up(data: Path | None, host: str, port: int, workers: dict[Lane, int]) -> None:
    """Start broker, API, workers and upkeep here, and watch over them.

    Writes DATA/plait.json with the address and a key once all is ready, and removes it on a clean stop.
    SIGTERM or Ctrl-C stops all; jobs in hand make a checkpoint and go on at the next start.
    """
    from ops import up as supervisor

    settings = _settings(data)
    telemetry.setup(settings.log_level)

    def ready(about: dict[str, Any]) -> None:
        click.echo(f"Plait is up at {about['base_url']}  (key and pids: {settings.data / supervisor.FILE})")
        click.echo("Stop it with Ctrl-C.")

    try:
        supervisor.up(settings, host=host, port=port, workers=workers, ready=ready)
    except (supervisor.AlreadyUp, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@_DATA
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--fd", type=int, hidden=True, help="A listening socket to take over.")
def api(data: Path | None, host: str, port: int, fd: int | None) -> None:
    """Serve the HTTP API (the database must be migrated)."""
    from api import serve

    settings = _settings(data)
    _process(settings)
    serve.serve(settings, bind=f"fd://{fd}" if fd is not None else f"{host}:{port}")


@main.command()
@_DATA
@click.option(
    "--lane", type=click.Choice([str(lane) for lane in Lane]), required=True, help="Which jobs to take."
)
def worker(data: Path | None, lane: str) -> None:
    """Take jobs of one lane, one at a time, until told to stop (SIGTERM drains)."""
    from worker import app

    settings = _settings(data)
    _process(settings)
    sys.exit(app.serve(settings, Lane(lane)))


@main.command()
@_DATA
def upkeep(data: Path | None) -> None:
    """Give silent workers' jobs to others, ring for waiting ones, send webhooks. Any number may run."""
    from worker import upkeep as rounds
    from worker.upkeep import webhooks

    settings = _settings(data)
    _process(settings)
    over = threading.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: over.set())
    with webhooks.sending(settings, over):
        rounds.run(settings, over)


@main.command()
@_DATA
def migrate(data: Path | None) -> None:
    """Bring the database to this version's schema and make the default tenant."""
    from db import tenants
    from db.migrate import upgrade
    from db.session import Database

    settings = _settings(data)
    if not settings.database_url:
        settings.data.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database)
    revision = upgrade(database)
    with database.transaction() as session:
        tenants.ensure(session)
    click.echo(f"The database has schema {revision}.")


@main.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command("create")
@_DATA
@click.option("--name", default="key", show_default=True, help="What the key is for.")
@click.option("--tenant", default="default", show_default=True, help="Whose objects it opens; made if new.")
@click.option("--days", type=float, help="Expires after this many days.  [default: never]")
@_JSON
def create_key(data: Path | None, name: str, tenant: str, days: float | None, as_json: bool) -> None:
    """Make a key. It is shown once; only its hash is kept."""
    from db import tenants

    with _database(data) as database, database.transaction() as session:
        tenants.ensure(session, tenant)
        seconds = days * 86_400 if days is not None else None
        row, secret = tenants.create_key(session, tenant, name=name, expires_in_s=seconds)
    if as_json:
        click.echo(json.dumps({"id": row.id, "tenant": tenant, "api_key": secret}))
    else:
        click.echo(f"{secret}\n(id {row.id}; it cannot be shown again)")


@keys.command("list")
@_DATA
@_JSON
def list_keys(data: Path | None, as_json: bool) -> None:
    """Every key: id, tenant, name, its last four characters, and whether it is live."""
    from db import tenants

    with _database(data) as database, database.reading() as session:
        rows = [
            {
                "id": k.id,
                "tenant": k.tenant,
                "name": k.name,
                "last4": k.last4,
                "revoked": k.revoked_at is not None,
            }
            for k in tenants.keys(session)
        ]
    _print_rows(rows, as_json)


@keys.command("revoke")
@_DATA
@click.argument("key_id")
def revoke_key(data: Path | None, key_id: str) -> None:
    """Close a key at once."""
    from db import tenants

    with _database(data) as database, database.transaction() as session:
        tenants.revoke(session, key_id)
    click.echo(f"{key_id} is revoked.")


def _database(data: Path | None) -> Any:
    from contextlib import closing

    from db import version
    from db.session import Database

    database = Database(_settings(data).database)
    if not version.is_current(database):
        raise click.ClickException(
            "The database is absent or not migrated; run `plait-server migrate` first."
        )
    return closing(database)


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo("  ".join(str(value) for value in row.values()))


@main.group()
def encoders() -> None:
    """The mirror: pretrained encoders on this machine, in Hugging Face format."""


@encoders.command("pull")
@_DATA
@click.argument("ids", nargs=-1)
def pull_encoders(data: Path | None, ids: tuple[str, ...]) -> None:
    """Fetch encoders into the mirror, each file checked by its SHA-256.

    Without IDS: the default encoders for text, images and sound.
    """
    from engine.hub import mirror

    settings = _settings(data)
    telemetry.setup("warning")
    for id_, folder in mirror.pull(
        ids or mirror.known(), mirror=settings.encoders_dir, progress=click.echo
    ).items():
        click.echo(f"{id_}  {folder}")


@encoders.command("list")
@_DATA
@_JSON
def list_encoders(data: Path | None, as_json: bool) -> None:
    """What the mirror holds."""
    from engine.hub import mirror

    held = mirror.listing(_settings(data).encoders_dir)
    _print_rows([{"id": id_, "folder": str(folder)} for id_, folder in held.items()], as_json)


@main.group()
def datasets() -> None:
    """Sample data sets, made on this machine."""


@datasets.command("build")
@click.argument("name", type=click.Choice(["av-digits"]), expose_value=False)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to."
)
@click.option("--seed", default=0, show_default=True)
def build_dataset(out: Path, seed: int) -> None:
    """Build a data set (seeded: the same seed gives the same bytes); a finished one is kept."""
    from engine.samples import av_digits

    click.echo(av_digits.build(out, seed=seed, progress=click.echo))


@main.group("data")
def data_() -> None:
    """Look through data before it is uploaded."""


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@data_.command("check")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--role",
    type=click.Choice(["training", "validation", "test"]),
    default="training",
    show_default=True,
    help="The part that PATH would play in a job.",
)
@click.option("--spec", type=_FILE, help="The job's `multimodal` (or its whole body), as YAML or JSON.")
@click.option("--schema", type=_FILE, help="The columns' types, label and so on, as YAML or JSON.")
@_DATA
@_JSON
def check_data(
    path: Path, role: Any, spec: Path | None, schema: Path | None, data: Path | None, as_json: bool
) -> None:
    """Read every row and every picture and sound of PATH, and list what is wrong.

    PATH is a zip, a .jsonl or .csv table, or a folder with metadata.jsonl or metadata.csv beside its media
    (a folder is read in place; links that lead out of it are refused). Nothing is uploaded, no server is asked.
    Exit code 1 if there is an error; warnings alone give 0.

    \b
    A zip, as a training file:       plait-server data check train.zip
    With the spec of the job:        plait-server data check train.zip --spec job.yaml
    For a program:                   plait-server data check train.zip --json
                                     prints {"issues": [{"line", "column", "code", "message", "severity", ...}]}
    """
    from ops import data_check

    settings = _settings(data)
    report = data_check.look(
        path,
        data_check.spec_from(spec, schema),
        role=role,
        mirror=settings.encoders_dir,
        local_roots=list(settings.local_roots),
    )
    if as_json:
        click.echo(data_check.as_json(report))
    else:
        data_check.show(report)
    sys.exit(1 if report.errors else 0)


@main.command()
@_DATA
@_JSON
def doctor(data: Path | None, as_json: bool) -> None:
    """Look at this machine and installation; exit 1 if something is wrong."""
    from ops import doctor as look

    findings = list(look.examine(_settings(data)))
    if as_json:
        click.echo(json.dumps([vars(f) for f in findings]))
    else:
        for f in findings:
            click.echo(f"{f.verdict:8} {f.what:10} {f.message}")
    if any(f.verdict == "error" for f in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()

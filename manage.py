"""The operator's command line, `plait-server`. Each command loads only what it needs."""

import json
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import lifeline
import settings as configuration
import telemetry
from domain.errors import PlaitError
from domain.job import Lane
from ops.commands import DATA, GROUPS, JSON, settings_of


class Commands(click.Group):
    """Imports a group when it is used, and turns what we know to go wrong into one line and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in GROUPS:
            group: click.Group = import_module(f"ops.commands.{cmd_name}").group
            return group
        return super().get_command(ctx, cmd_name)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        told = {name: command.get_short_help_str(60) for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted({**told, **GROUPS}.items()))

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
@DATA
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

    settings = settings_of(data)
    telemetry.setup(settings.log_level)

    def ready(about: dict[str, Any]) -> None:
        click.echo(f"Plait is up at {about['base_url']}  (key and pids: {settings.data / supervisor.FILE})")
        click.echo("Stop it with Ctrl-C.")

    try:
        supervisor.up(settings, host=host, port=port, workers=workers, ready=ready)
    except (supervisor.AlreadyUp, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@DATA
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--fd", type=int, hidden=True, help="A listening socket to take over.")
def api(data: Path | None, host: str, port: int, fd: int | None) -> None:
    """Serve the HTTP API (the database must be migrated)."""
    from api import serve

    settings = settings_of(data)
    _process(settings)
    serve.serve(settings, bind=f"fd://{fd}" if fd is not None else f"{host}:{port}")


@main.command()
@DATA
@click.option(
    "--lane", type=click.Choice([str(lane) for lane in Lane]), required=True, help="Which jobs to take."
)
def worker(data: Path | None, lane: str) -> None:
    """Take jobs of one lane, one at a time, until told to stop (SIGTERM drains)."""
    from worker import app

    settings = settings_of(data)
    _process(settings)
    sys.exit(app.serve(settings, Lane(lane)))


@main.command()
@DATA
def upkeep(data: Path | None) -> None:
    """Give silent workers' jobs to others, ring for waiting ones, send webhooks. Any number may run."""
    from worker import upkeep as rounds
    from worker.upkeep import webhooks

    settings = settings_of(data)
    _process(settings)
    over = threading.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: over.set())
    with webhooks.sending(settings, over):
        rounds.run(settings, over)


@main.command()
@DATA
def migrate(data: Path | None) -> None:
    """Bring the database to this version's schema and make the default tenant."""
    from db import tenants
    from db.migrate import upgrade
    from db.session import Database

    settings = settings_of(data)
    if not settings.database_url:
        settings.data.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database)
    revision = upgrade(database)
    with database.transaction() as session:
        tenants.ensure(session)
    click.echo(f"The database has schema {revision}.")


@main.command()
@DATA
@JSON
def doctor(data: Path | None, as_json: bool) -> None:
    """Look at this machine and installation; exit 1 if something is wrong."""
    from ops import doctor as look

    findings = list(look.examine(settings_of(data)))
    if as_json:
        click.echo(json.dumps([vars(f) for f in findings]))
    else:
        for f in findings:
            click.echo(f"{f.verdict:8} {f.what:10} {f.message}")
    if any(f.verdict == "error" for f in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()

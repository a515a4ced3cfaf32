"""`plait webhooks`: who is told of jobs, and what was sent to them."""

from typing import Any

import click

from plait.cli import ids, output
from plait.cli.command import Group, connected, json_option, limit_option
from plait.webhooks import WebhookDelivery, WebhookEndpoint

_ENDPOINT = click.argument("endpoint_id", shell_complete=ids.webhooks)
_TYPES = click.option(
    "-t", "--type", "types", multiple=True, help="A type to be told of; may be repeated.  [default: all]"
)


@click.group(cls=Group)
def webhooks() -> None:
    """Have an address told when jobs end."""


@webhooks.command()
@click.argument("url")
@_TYPES
@click.option("--name", default="", help="What the endpoint is for.")
@json_option
def create(url: str, types: tuple[str, ...], name: str, as_json: bool) -> None:
    """Make an endpoint. Its secret is printed now and cannot be read again.

    \b
    plait webhooks create https://ci.example.com/plait
    plait webhooks create https://ci.example.com/plait -t fine_tuning.job.succeeded -t fine_tuning.job.failed
    """
    _tell(connected().webhooks.create(url, types or ("*",), name=name), as_json)


@webhooks.command("list")
@limit_option
@json_option
def list_endpoints(limit: int, as_json: bool) -> None:
    """List endpoints, newest first.

    \b
    plait webhooks list --limit 5
    """
    found = list(connected().webhooks.list(limit=limit))
    if as_json:
        output.data([one.raw for one in found])
        return
    rows = [(one.id, one.status, one.url, ", ".join(one.event_types), one.name) for one in found]
    output.table(("ID", "STATUS", "URL", "TYPES", "NAME"), rows)


@webhooks.command()
@_ENDPOINT
@json_option
def show(endpoint_id: str, as_json: bool) -> None:
    """Print how an endpoint stands, and why it is disabled.

    \b
    plait webhooks show whe_k3v
    """
    _tell(connected().webhooks.get(endpoint_id), as_json)


@webhooks.command()
@_ENDPOINT
@click.option("--url", help="Where messages are sent from now on.")
@_TYPES
@click.option("--name", help="What the endpoint is for.")
@click.option("--enable/--disable", "enabled", default=None, help="Switch it on or off.")
@json_option
def update(
    endpoint_id: str,
    url: str | None,
    types: tuple[str, ...],
    name: str | None,
    enabled: bool | None,
    as_json: bool,
) -> None:
    """Change an endpoint.

    \b
    plait webhooks update whe_k3v --enable
    plait webhooks update whe_k3v --url https://ci.example.com/other -t '*'
    """
    given = {"url": url, "event_types": list(types) or None, "name": name, "enabled": enabled}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError("Nothing to change: give --url, --type, --name, --enable or --disable.")
    _tell(connected().webhooks.update(endpoint_id, **changes), as_json)


@webhooks.command()
@_ENDPOINT
@json_option
def delete(endpoint_id: str, as_json: bool) -> None:
    """Delete an endpoint; what still waits for it is not sent.

    \b
    plait webhooks delete whe_k3v
    """
    connected().webhooks.delete(endpoint_id)
    if as_json:
        output.data({"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True})
    else:
        output.line(f"{endpoint_id} is deleted.")


@webhooks.command()
@_ENDPOINT
@click.option("--now", is_flag=True, help="The old secret signs no more at once, as when it has leaked.")
@json_option
def rotate(endpoint_id: str, now: bool, as_json: bool) -> None:
    """Make a new secret; for 24 hours the old one signs as well.

    \b
    plait webhooks rotate whe_k3v
    """
    _tell(connected().webhooks.rotate(endpoint_id, keep_old=not now), as_json)


@webhooks.command()
@_ENDPOINT
@click.option(
    "-t", "--type", "type_", help="The type that the sample pretends to be.  [default: webhook.test]"
)
@json_option
@click.pass_context
def test(ctx: click.Context, endpoint_id: str, type_: str | None, as_json: bool) -> None:
    """Send a sample once and print what the receiver answers; exit code 1 unless that is a success.

    \b
    plait webhooks test whe_k3v
    """
    told = connected().webhooks.test(endpoint_id, type_)
    if as_json:
        output.data(told)
    elif told.get("error"):
        output.line(f"{told.get('delivery')} failed: {_outcome(told)}")
    elif told.get("success"):
        output.line(f"{told.get('delivery')} arrived: {told.get('status_code')}")
    else:
        output.line(
            f"{told.get('delivery')} was not sent yet; see `plait webhooks deliveries {endpoint_id}`."
        )
    if told.get("error") or not told.get("success"):
        ctx.exit(1)


@webhooks.command()
@_ENDPOINT
@click.argument("delivery_id", required=False)
@click.option("--status", type=click.Choice(["pending", "delivered", "failed"]), help="Only these.")
@limit_option
@json_option
def deliveries(
    endpoint_id: str, delivery_id: str | None, status: str | None, limit: int, as_json: bool
) -> None:
    """List what was sent to an endpoint, newest first; with DELIVERY_ID, each try of that message.

    \b
    plait webhooks deliveries whe_k3v --status failed
    plait webhooks deliveries whe_k3v msg_a2b
    """
    if delivery_id:
        _tell_tries(connected().webhooks.delivery(endpoint_id, delivery_id), as_json)
        return
    found = list(connected().webhooks.deliveries(endpoint_id, status=status, limit=limit))
    if as_json:
        output.data([one.raw for one in found])
        return
    rows = [
        (
            one.id,
            output.when(one.created_at),
            one.event_type,
            one.job,
            one.status,
            one.attempts,
            _outcome(one.raw),
        )
        for one in found
    ]
    output.table(("ID", "MADE", "TYPE", "JOB", "STATUS", "TRIES", "LAST"), rows)


@webhooks.command()
@_ENDPOINT
@click.argument("delivery_id")
@json_option
def redeliver(endpoint_id: str, delivery_id: str, as_json: bool) -> None:
    """Send a message again, at once and under the same id.

    \b
    plait webhooks redeliver whe_k3v msg_a2b
    """
    sent = connected().webhooks.redeliver(endpoint_id, delivery_id)
    if as_json:
        output.data(sent.raw)
    else:
        output.line(f"{sent.id} is sent again.")


def _tell(endpoint: WebhookEndpoint, as_json: bool) -> None:
    if as_json:
        output.data(endpoint.raw)
        return
    output.fields(
        {
            "id": endpoint.id,
            "url": endpoint.url,
            "name": endpoint.name,
            "types": ", ".join(endpoint.event_types),
            "status": endpoint.status,
            "disabled": endpoint.disabled_reason,
            "fails since": output.when(endpoint.raw.get("failing_since")),
            "created": output.when(endpoint.created_at),
            "secret": endpoint.secret or endpoint.raw.get("signing_secret_hint"),
        }
    )
    if endpoint.secret:
        output.note("Keep the secret: it is not shown again.")


def _tell_tries(message: WebhookDelivery, as_json: bool) -> None:
    if as_json:
        output.data(message.raw)
        return
    output.fields(
        {
            "id": message.id,
            "type": message.event_type,
            "job": message.job,
            "status": message.status,
            "next try": output.when(message.next_attempt_at),
            "payload": message.raw.get("payload"),
        }
    )
    for one in message.tries:
        output.line(
            f"{output.when(one.get('started_at'))}  {_outcome(one)}  {one.get('duration_ms')} ms  {_remark(one)}"
        )


def _outcome(told: dict[str, Any]) -> str:
    """`503 bad_status`, `delivery_timeout`, `200`."""
    return " ".join(str(told[name]) for name in ("status_code", "error") if told.get(name))


def _remark(one: dict[str, Any]) -> str:
    return " ".join(str(one[name]) for name in ("message", "answer") if one.get(name))

"""A tenant's request rate over HTTP: each request spends one, each answer says what is left in OpenAI's headers."""

from flask import Flask, Response, g

from bus.limits import Limits
from domain.access import Principal
from domain.errors import RateLimited


def install(app: Flask) -> None:
    app.after_request(_told)


def spend(limits: Limits, who: Principal) -> None:
    """Raises RateLimited when the tenant has sent too many; tenants without a limit cost nothing."""
    if who.rate is None:
        return
    g.standing = standing = limits.spend(who.tenant, who.rate)
    if standing.retry_s > 0:
        raise RateLimited(
            f"This tenant may send {who.rate.per_minute} requests a minute, {who.rate.burst} of them at once; "
            f"try again in {duration(standing.retry_s)}.",
            retry_after_s=standing.retry_s,
        )


def _told(response: Response) -> Response:
    standing = g.get("standing")
    if standing is not None:
        response.headers["x-ratelimit-limit-requests"] = str(standing.limit)
        response.headers["x-ratelimit-remaining-requests"] = str(standing.remaining)
        response.headers["x-ratelimit-reset-requests"] = duration(standing.reset_s)
    return response


def duration(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `8.64s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"

"""Builds the web application from its settings. Importing this does no work."""

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, g

from api import (
    api_keys,
    audit_events,
    auth,
    checks,
    deliveries,
    errors,
    events,
    files,
    fine_tuning,
    health,
    jobs,
    models,
    openapi,
    predictions,
    rates,
    trace,
    training,
    uploads_in_parts,
    webhooks,
)
from api.keyring import Keyring
from api.listeners import Limits as StreamLimits
from api.listeners import Listeners
from api.quick import Quick
from api.rendered import Rendered
from api.requests import JSON_LIMIT, Request
from api.ringing import Ringing
from api.routes import Route, Routes
from api.services import Ringer, Services
from api.waiting import Waiting
from bus.bells import Bells
from bus.limits import Limits
from bus.wakes import Wakes
from db.at_once import Rooms
from db.blobs import Blobs, open_blobs
from db.session import Database
from settings import Settings

GROUPS: tuple[Routes, ...] = (
    files.routes,
    fine_tuning.routes,
    events.routes,
    training.routes,
    jobs.routes,
    models.routes,
    health.routes,
    openapi.routes,
    checks.routes,
    predictions.routes,
    webhooks.routes,
    deliveries.routes,
    uploads_in_parts.routes,
    api_keys.routes,
    audit_events.routes,
)


def create_app(
    settings: Settings,
    database: Database | None = None,
    bells: Ringer | None = None,
    streams: StreamLimits | None = None,
) -> Flask:
    """The application; what is not given is made from the settings."""
    blobs = open_blobs(settings)
    database, wakes = database or _database(settings), Wakes(settings.redis_url)
    services = Services(
        settings=settings,
        database=database,
        blobs=blobs,
        bells=bells or Ringing(Bells(settings.redis_url)),
        wakes=wakes,
        waiting=Waiting(settings.api_threads),
        listeners=Listeners(database, wakes, streams or StreamLimits()),
        keyring=Keyring(database),
        limits=Limits(settings.redis_url),
        rendered=Rendered(),
        rooms=Rooms(),
    )
    app = _flask(blobs)
    # Whoever serves the process lends its connections to the listeners, and ends the waiting when it stops.
    app.extensions.update(waiting=services.waiting, listeners=services.listeners)
    trace.install(app)
    rates.install(app)
    errors.install(app)
    served = [route for group in GROUPS for route in group]
    app.extensions["openapi"] = openapi.describe(served)
    mount(app, services, served)
    app.wsgi_app = Quick(app.wsgi_app, services)  # type: ignore[method-assign]
    return app


def _database(settings: Settings) -> Database:
    """Answers, or is told to be away, well within the time that a request waits for it."""
    patience_s = settings.database_timeout_s * 0.8
    # Most threads wait, and who waits holds no connection. More are made under a flood, and closed after use,
    # which costs more than what they are made for.
    pool = max(1, settings.api_threads // 2)
    return Database(settings.database, timeout_s=patience_s, longest_s=patience_s, pool=pool)


def _flask(blobs: Blobs) -> Flask:
    app = Flask("api", static_folder=None, template_folder=None)
    app.request_class = Request
    # A redirect would be answered in HTML; an address that is written wrongly is a 404 instead.
    app.url_map.merge_slashes = False
    blobs.spool.mkdir(parents=True, exist_ok=True)
    app.config.update(
        MAX_CONTENT_LENGTH=JSON_LIMIT,
        MAX_FORM_PARTS=64,
        PROVIDE_AUTOMATIC_OPTIONS=False,
        SPOOL=blobs.spool,
    )
    return app


def mount(app: Flask, services: Services, routes: Iterable[Route]) -> None:
    """Binds every route to its view; those that need a scope ask for a key first."""
    for route in routes:
        app.add_url_rule(
            route.rule, endpoint=route.name, view_func=_view(route, services), methods=[route.method]
        )


def _view(route: Route, services: Services) -> Callable[..., Response]:
    def view(**path: Any) -> Response:
        g.route = route
        if route.needs is None:
            return route.answer_of(services, **path)
        return route.answer_of(services, auth.principal(services, route.needs), **path)

    return view

"""Whether the process lives and whether it can serve. Asked by machines, hence without a key."""

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api import shapes
from api.routes import Routes
from api.services import Services
from db import version
from domain.errors import Unavailable

routes = Routes()


@routes.get("/healthz", answer=shapes.Health)
def healthz(_plait: Services) -> shapes.Health:
    """Says that the process lives; touches nothing else."""
    return shapes.Health()


@routes.get("/readyz", answer=shapes.Readiness, errors=(503,))
def readyz(plait: Services) -> shapes.Readiness:
    """Says that requests can be served; a 503 names the part that cannot."""
    _refuse_without_database(plait)
    if not version.is_current(plait.database):
        raise Unavailable(
            "The database's schema is not this version's; run `plait-server migrate`.", code="schema_outdated"
        )
    broker = _broker(plait)
    return shapes.Readiness(status="degraded" if broker == "down" else "ready", broker=broker)


def _refuse_without_database(plait: Services) -> None:
    try:
        with plait.database.reading() as session:
            # A connection of the pool is not asked whether it lives.
            session.scalar(text("SELECT 1"))
    except SQLAlchemyError:
        raise Unavailable("The database does not answer.", code="database_unavailable") from None


def _broker(plait: Services) -> shapes.Broker:
    if not plait.settings.redis_url:
        return "none"
    return "ok" if plait.bells.ready() else "down"

"""Models over HTTP: the families that can be fine-tuned and the tenant's own models."""

import re

from flask import Response

from api import shapes
from api.routes import Routes
from api.services import Services
from api.zipped import files_of, zipped
from db import registry, tables
from db.artifacts import Artifacts
from domain.access import Principal, Scope
from domain.errors import Forbidden, NotFound
from domain.families import FAMILIES as NAMES
from domain.families import PRESETS

routes = Routes()

#: What a job's `model` may name. They came with this code, hence one instant for all.
FAMILIES = tuple(
    shapes.Model(id=family, created=1_793_491_200, owned_by="plait") for family in NAMES + PRESETS
)


@routes.get("/v1/models", needs=Scope.MODELS_READ, answer=shapes.ModelPage)
def index(plait: Services, who: Principal) -> shapes.ModelPage:
    """Lists the tenant's fine-tuned models, newest first, and the families to start from."""
    with plait.database.reading() as session:
        known = registry.describe(session, registry.all_of(session, who.tenant))
    own = [shapes.model(one) for one in known]
    return shapes.page(shapes.ModelPage, [*own, *FAMILIES], has_more=False)


@routes.get("/v1/models/<path:model>", needs=Scope.MODELS_READ, answer=shapes.Model, errors=(404,))
def retrieve(plait: Services, who: Principal, model: str) -> shapes.Model:
    """Describes one model. A fine-tuned model's id holds colons: send it as it is."""
    if (family := _family(model)) is not None:
        return family
    with plait.database.reading() as session:
        (known,) = registry.describe(session, [registry.get(session, who.tenant, model)])
    return shapes.model(known)


@routes.delete(
    "/v1/models/<path:model>", needs=Scope.MODELS_WRITE, answer=shapes.ModelDeleted, errors=(403, 404)
)
def delete(plait: Services, who: Principal, model: str) -> shapes.ModelDeleted:
    """Deletes a fine-tuned model. Predictions that wait for it fail with `model_not_found`."""
    if _family(model) is not None:
        raise Forbidden(f"{model} came with Plait; only fine-tuned models can be deleted.", code="built_in")
    with plait.change(who) as session:
        registry.delete(session, who.tenant, model)
    return shapes.ModelDeleted(id=model)


@routes.get(
    "/v1/models/<path:model>/download",
    needs=Scope.MODELS_READ,
    answer=None,
    media=("application/zip",),
    errors=(404,),
)
def download(plait: Services, who: Principal, model: str) -> Response:
    """Sends a fine-tuned model's folder, Hugging Face style, as a zip; `manifest.json` has the checksums."""
    with plait.database.reading() as session:
        row = registry.get(session, who.tenant, model)
    folder = Artifacts(plait.settings.data.absolute() / "artifacts").path(row.ref)
    if not files_of(folder):
        raise NotFound(f"The bytes of {model} are gone.", code="model_not_found", param="model")
    response = Response(zipped(folder, row.created_at), content_type="application/zip")
    response.headers.set("Content-Disposition", "attachment", filename=_filename(row))
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response


def _family(name: str) -> shapes.Model | None:
    return next((known for known in FAMILIES if known.id == name), None)


def _filename(row: tables.Model) -> str:
    """An id's colons are no good in a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", row.id).strip("-") + ".zip"

"""Models over HTTP: the families that can be fine-tuned and the tenant's own models."""

from typing import get_args

from api import shapes
from api.routes import Routes
from api.services import Services
from db import registry
from domain.access import Principal, Scope
from domain.specs import Multimodal

routes = Routes()

#: What a job's `model` may name. They came with this code, hence one instant for all.
FAMILIES = tuple(
    shapes.Model(id=family, created=1_793_491_200, owned_by="plait")
    for family in get_args(Multimodal.model_fields["family"].annotation)
)


@routes.get("/v1/models", needs=Scope.MODELS_READ, answer=shapes.ModelPage)
def index(plait: Services, who: Principal) -> shapes.ModelPage:
    """Lists the tenant's fine-tuned models, newest first, and the families to start from."""
    with plait.database.reading() as session:
        own = [shapes.model(row) for row in registry.all_of(session, who.tenant)]
    return shapes.page(shapes.ModelPage, [*own, *FAMILIES], has_more=False)


@routes.get("/v1/models/<path:model>", needs=Scope.MODELS_READ, answer=shapes.Model, errors=(404,))
def retrieve(plait: Services, who: Principal, model: str) -> shapes.Model:
    """Describes one model. A fine-tuned model's id holds colons: send it as it is."""
    family = next((known for known in FAMILIES if known.id == model), None)
    if family is not None:
        return family
    with plait.database.reading() as session:
        return shapes.model(registry.get(session, who.tenant, model))

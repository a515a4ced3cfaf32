"""Who calls: the bearer key of a request, looked up. Knows no passwords and no sessions."""

import logging

from flask import Response, after_this_request, request

from api import rates
from api.keyring import Keyring
from api.services import Services
from domain.access import Principal, Scope
from domain.errors import Forbidden, Unauthorized

log = logging.getLogger(__name__)


def principal(plait: Services, scope: Scope) -> Principal:
    """The caller, whose key is live, within its tenant's rate, and carries `scope`."""
    who, use_is_due = plait.keyring.who(_bearer(request.headers.get("Authorization", "")))
    if use_is_due:
        _note_use_afterwards(plait.keyring, who)
    rates.spend(plait.limits, who)
    try:
        who.needs(scope)
    except Forbidden:
        log.warning("key %s of tenant %s was refused: it lacks %s", who.key_id, who.tenant, scope)
        raise
    return who


def _note_use_afterwards(keyring: Keyring, who: Principal) -> None:
    """Once the answer is sent: the caller waits for no write."""

    @after_this_request
    def hook(response: Response) -> Response:
        response.call_on_close(lambda: keyring.note_use(who.key_id))
        return response


def _bearer(header: str) -> str:
    scheme, _, secret = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorized("No API key was sent; send the header `Authorization: Bearer plait-...`.")
    return secret.strip()

"""Tenants, their quotas and their keys. A key is shown once; only its hash is kept."""

import hmac
from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db.session import now
from db.tables import ApiKey, Quota, Tenant
from db.upsert import insert
from domain.access import ALL_SCOPES, Principal, Scope
from domain.errors import NotFound, Unauthorized
from domain.ids import key_hash, new_id, new_key

DEFAULT_TENANT = "default"


def ensure(session: Session, tenant_id: str = DEFAULT_TENANT) -> None:
    """The tenant exists, with a quota; told twice it changes nothing."""
    session.execute(insert(session, Tenant).values(id=tenant_id, name=tenant_id).on_conflict_do_nothing())
    session.execute(insert(session, Quota).values(tenant=tenant_id).on_conflict_do_nothing())


def create_key(
    session: Session,
    tenant_id: str,
    *,
    name: str,
    scopes: Iterable[Scope] = ALL_SCOPES,
    expires_in_s: float | None = None,
) -> tuple[ApiKey, str]:
    """A new key's row and the key itself, which cannot be read again."""
    secret = new_key()
    row = ApiKey(
        id=new_id("key_"),
        tenant=tenant_id,
        name=name,
        hash=key_hash(secret),
        last4=secret[-4:],
        scopes=sorted(scopes),
        expires_at=now() + expires_in_s if expires_in_s is not None else None,
    )
    session.add(row)
    session.flush()
    return row, secret


def authenticate(session: Session, secret: str) -> Principal:
    """Whose key this is; Unauthorized unless it is live."""
    digest = key_hash(secret)
    row = session.execute(select(ApiKey, now().label("now")).where(ApiKey.hash == digest)).one_or_none()
    if row is None or not hmac.compare_digest(row.ApiKey.hash, digest):
        raise Unauthorized("This API key is not known; make one with `plait-server keys create`.")
    key = row.ApiKey
    if key.revoked_at is not None:
        raise Unauthorized("This API key was revoked; make one with `plait-server keys create`.")
    if key.expires_at is not None and key.expires_at <= row.now:
        raise Unauthorized("This API key has expired; make one with `plait-server keys create`.")
    return Principal(tenant=key.tenant, key_id=key.id, scopes=frozenset(Scope(s) for s in key.scopes))


def is_live(session: Session, secret: str) -> bool:
    """Whether this key opens anything."""
    try:
        authenticate(session, secret)
    except Unauthorized:
        return False
    return True


def keys(session: Session) -> Sequence[ApiKey]:
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at)).all()


def revoke(session: Session, key_id: str) -> ApiKey:
    try:
        key = session.scalars(select(ApiKey).where(ApiKey.id == key_id)).one()
    except NoResultFound:
        raise NotFound(f"No key {key_id}; `plait-server keys list` shows them.") from None
    key.revoked_at = key.revoked_at or session.scalar(select(now()))
    return key

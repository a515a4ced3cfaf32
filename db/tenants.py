"""Tenants and their keys. A key is shown once; only its hash is kept."""

import hmac
import logging
import math
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass

from sqlalchemy import Row, select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from db import pages
from db.session import now
from db.tables import ApiKey, Quota, Tenant
from db.upsert import insert
from domain.access import ALL_SCOPES, Principal, Scope
from domain.errors import Conflict, NotFound, Unauthorized
from domain.ids import key_hash, new_id, new_key
from domain.rate import Rate

log = logging.getLogger(__name__)

DEFAULT_TENANT = "default"
#: `last_used_at` is right to this many seconds.
USE_NOTED_EVERY_S = 60.0


@dataclass(frozen=True)
class LiveKey:
    """Whose key it is, for how many seconds that can stay true, and whether its last use is worth noting."""

    principal: Principal
    lives_s: float
    use_is_due: bool


def ensure(session: Session, tenant_id: str = DEFAULT_TENANT) -> None:
    """The tenant exists, with a quota; told twice it changes nothing."""
    session.execute(insert(session, Tenant).values(id=tenant_id, name=tenant_id).on_conflict_do_nothing())
    session.execute(insert(session, Quota).values(tenant=tenant_id).on_conflict_do_nothing())


def create_key(
    session: Session,
    tenant_id: str,
    *,
    name: str,
    scopes: Iterable[Scope | str] = ALL_SCOPES,
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
        scopes=sorted(set(scopes)),
        expires_at=now() + expires_in_s if expires_in_s is not None else None,
    )
    session.add(row)
    session.flush()
    return row, secret


def authenticate(session: Session, secret: str) -> Principal:
    """Whose key this is; Unauthorized unless it is live."""
    return look_up(session, key_hash(secret)).principal


_BY_HASH = select(
    ApiKey.id,
    ApiKey.tenant,
    ApiKey.hash,
    ApiKey.scopes,
    ApiKey.expires_at,
    ApiKey.revoked_at,
    ApiKey.last_used_at,
    Quota.requests_per_minute,
    Quota.request_burst,
    now().label("now"),
).join(Quota, Quota.tenant == ApiKey.tenant)


def look_up(session: Session, digest: str) -> LiveKey:
    """The key with this hash; Unauthorized unless it is live."""
    row = session.execute(_BY_HASH.where(ApiKey.hash == digest)).one_or_none()
    if row is None or not hmac.compare_digest(row.hash, digest):
        raise Unauthorized("This API key is not known; make one with `plait-server keys create`.")
    if row.revoked_at is not None:
        raise _refused(row, "was revoked")
    if row.expires_at is not None and row.expires_at <= row.now:
        raise _refused(row, "has expired")
    return LiveKey(
        Principal(
            tenant=row.tenant,
            key_id=row.id,
            scopes=frozenset(Scope(s) for s in row.scopes),
            rate=_rate(row.requests_per_minute, row.request_burst),
        ),
        lives_s=row.expires_at - row.now if row.expires_at is not None else math.inf,
        use_is_due=row.last_used_at is None or row.last_used_at <= row.now - USE_NOTED_EVERY_S,
    )


def _refused(row: Row[*tuple[object, ...]], why: str) -> Unauthorized:
    log.warning("key %s of tenant %s was refused: it %s", row.id, row.tenant, why)
    return Unauthorized(f"This API key {why}; make one with `plait-server keys create`.")


def _rate(per_minute: int, burst: int) -> Rate | None:
    return Rate(per_minute, burst or per_minute) if per_minute else None


def live(session: Session, key_ids: Collection[str]) -> Set[str]:
    """Those of the keys that still open something."""
    is_live = ApiKey.revoked_at.is_(None) & (ApiKey.expires_at.is_(None) | (ApiKey.expires_at > now()))
    return set(session.scalars(select(ApiKey.id).where(ApiKey.id.in_(key_ids), is_live)))


def is_live(session: Session, secret: str) -> bool:
    """Whether this key opens anything."""
    try:
        authenticate(session, secret)
    except Unauthorized:
        return False
    return True


def note_use(session: Session, key_id: str) -> None:
    """The key was used just now; of many who say so in the same minute one writes."""
    is_due = ApiKey.last_used_at.is_(None) | (ApiKey.last_used_at <= now() - USE_NOTED_EVERY_S)
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, is_due)
        .values(last_used_at=now())
        .execution_options(synchronize_session=False)
    )


def keys(session: Session, tenant: str | None = None) -> Sequence[ApiKey]:
    """All keys, or all of one tenant, oldest first."""
    query = select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)
    return session.scalars(query.where(ApiKey.tenant == tenant) if tenant is not None else query).all()


def page_of_keys(
    session: Session, tenant: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[ApiKey], bool]:
    """The tenant's keys, newest first, from behind `after`; and whether there are more."""
    mark = get_key(session, after, tenant, param="after") if after is not None else None
    return pages.newest_first(session, select(ApiKey).where(ApiKey.tenant == tenant), ApiKey, mark, limit)


def get_key(session: Session, key_id: str, tenant: str | None = None, *, param: str = "id") -> ApiKey:
    """A key by its id; with a tenant, only one of its own."""
    query = select(ApiKey).where(ApiKey.id == key_id)
    try:
        return session.scalars(query.where(ApiKey.tenant == tenant) if tenant is not None else query).one()
    except NoResultFound:
        raise NotFound(
            f"No key {key_id}; `plait-server keys list` shows them.", code="key_not_found", param=param
        ) from None


def revoke(session: Session, key_id: str, tenant: str | None = None) -> ApiKey:
    """Closes a key for ever; told twice it changes nothing."""
    key = get_key(session, key_id, tenant)
    key.revoked_at = key.revoked_at or session.scalar(select(now()))
    return key


def rotate(session: Session, key: ApiKey, grace_s: float) -> tuple[ApiKey, str]:
    """A new key in `key`'s place: the same name, scopes and length of life. `key` ends after the grace."""
    # Under the row's lock: of two who rotate at once, one is refused.
    session.refresh(key, with_for_update=True)
    instant = session.scalars(select(now())).one()
    if state_of(key, instant) != "live":
        raise Conflict(
            f"Key {key.id} is revoked, has expired or was rotated before; rotate a live one, or make a new key.",
            code="key_not_live",
            param="id",
        )
    life = key.expires_at - key.created_at if key.expires_at is not None else None
    made, secret = create_key(session, key.tenant, name=key.name, scopes=key.scopes, expires_in_s=life)
    end = instant + grace_s
    key.successor, key.expires_at = made.id, min(end, key.expires_at or end)
    return made, secret


def state_of(key: ApiKey, instant: float) -> str:
    """`live`, `rotated` (live until its grace is over), `expired` or `revoked`."""
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= instant:
        return "expired"
    return "rotated" if key.successor is not None else "live"

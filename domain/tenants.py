"""What a tenant may be called: its name stands in the ids of its models, between colons."""

import re

from domain.errors import BadRequest

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def tenant_name(text: str) -> str:
    """`text`, if it may name a tenant; else a BadRequest that says what may."""
    if not _NAME.fullmatch(text):
        raise BadRequest(
            f"{text!r} cannot name a tenant: up to 64 small letters, digits, `.`, `_` and `-`.",
            code="invalid_tenant",
        )
    return text

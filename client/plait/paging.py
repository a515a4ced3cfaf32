"""Walks a list of the server page by page. Knows no shape of what is listed."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from plait.transport import Transport

LARGEST_PAGE = 100


def walk(
    transport: Transport,
    path: str,
    *,
    after: str | None = None,
    limit: int | None = None,
    page: int = LARGEST_PAGE,
    params: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Items after the one with id `after`, at most `limit` in all; pages are fetched as they are needed."""
    left = limit
    while left is None or left > 0:
        query: dict[str, str | int] = {**(params or {}), "limit": min(left or page, page)}
        if after is not None:
            query["after"] = after
        answer = transport.get(path, query)
        items = list(answer.get("data") or ())[:left]
        yield from items
        if not items or not answer.get("has_more"):
            return
        after = str(answer.get("last_id") or items[-1]["id"])
        left = left - len(items) if left is not None else None


def one(path: str, id_: str, *, slashes: bool = False) -> str:
    """The path of one object; an empty id would name the whole list."""
    if not id_:
        raise ValueError("the id is empty")
    return f"{path}/{quote(id_, safe=':/' if slashes else ':')}"

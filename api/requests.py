"""Reads what a request carries, strictly: bodies, keys, numbers of the query. Refuses with a 400 that says why."""

import json
import math
import re
from collections.abc import Sequence
from hashlib import sha256
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn

import flask
from flask import current_app, request

from domain.errors import BadRequest, UnsupportedMedia

#: Most bytes of a JSON body.
JSON_LIMIT = 4 * 1024 * 1024
_MOST_DEPTH = 32
#: As many as a job may carry. A database plans each of them, and hundreds keep it busy for seconds.
_MOST_LABELS = 16
_SURROGATE = re.compile("[\ud800-\udfff]")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


class Request(flask.Request):
    """Spools an uploaded file on the disk of the blobs: /tmp may be small, or memory."""

    def _get_file_stream(self, *_: Any, **__: Any) -> IO[bytes]:
        return TemporaryFile("rb+", dir=current_app.config["SPOOL"])


def json_body() -> dict[str, Any]:
    """The request's JSON object."""
    refuse_other_types()
    return json_object(request.get_data(cache=False))


def refuse_other_types() -> None:
    if not request.is_json:
        raise UnsupportedMedia("Send the body as JSON, with the header `Content-Type: application/json`.")


def json_object(data: bytes) -> dict[str, Any]:
    body = read_json(data)
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    return body


def optional_json_body() -> dict[str, Any]:
    """The request's JSON object; empty where there is no body, whatever its type is said to be."""
    return json_body() if request.get_data() else {}


def read_json(data: bytes, *, param: str | None = None) -> Any:
    """JSON without NaN, NUL characters, broken Unicode or bottomless nesting: no database keeps those."""
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_constant)
        _check(value, _MOST_DEPTH)
    except UnicodeDecodeError:
        raise _invalid("it is not UTF-8", param) from None
    except RecursionError:
        raise _invalid(f"it is nested deeper than {_MOST_DEPTH} levels", param) from None
    except ValueError as error:
        raise _invalid(str(error), param) from None
    return value


def _invalid(why: str, param: str | None) -> BadRequest:
    return BadRequest(f"This is not JSON that can be read: {why}.", code="invalid_json", param=param)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise RecursionError
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a string holds a NUL character")
        if not value.isascii() and _SURROGATE.search(value):
            raise ValueError("a string holds half of a surrogate pair")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is too large")
    elif isinstance(value, (dict, list)):
        for inner in (*value, *value.values()) if isinstance(value, dict) else value:
            _check(inner, depth - 1)


def body_hash(body: Any) -> str:
    """Equal for equal bodies, however their keys are ordered."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode()).hexdigest()


def idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise BadRequest(
            "An Idempotency-Key is 1 to 255 printable ASCII characters.",
            code="invalid_idempotency_key",
            param="Idempotency-Key",
        )
    return key


def is_retry() -> bool:
    """Whether the stock client says that it sends this again."""
    count = request.headers.get("x-stainless-retry-count", "0")
    return count.isascii() and count.isdigit() and count.strip("0") != ""


def limit(default: int = 20, most: int = 100) -> int:
    return number("limit", default, least=1, most=most)


def number(name: str, default: int, *, least: int, most: int) -> int:
    """A whole number of the query, from `least` to `most`."""
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
        message = f"{name}: must be a number from {least} to {most}."
        raise BadRequest(message, code=f"invalid_{name}", param=name)
    return int(text)


def words(name: str) -> list[str] | None:
    """A list of the query, separated by commas; None when it is not given."""
    text = request.args.get(name)
    return [word.strip() for word in text.split(",") if word.strip()] if text is not None else None


def one_of(name: str, allowed: Sequence[str]) -> str | None:
    """A word of the query; None when it is not given."""
    text = request.args.get(name)
    if text is not None and text not in allowed:
        listed = ", ".join(allowed)
        raise BadRequest(f"{name}: must be one of {listed}.", code=f"invalid_{name}", param=name)
    return text


def after() -> str | None:
    """The id behind which a page begins."""
    return request.args.get("after") or None


def newest_first() -> bool:
    order = request.args.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadRequest("order: must be 'asc' or 'desc'.", code="invalid_order", param="order")
    return order == "desc"


def metadata_filter() -> dict[str, str]:
    """`metadata[k]=v` of the query, as a dictionary. Any character may stand in a name."""
    inside = slice(len("metadata["), -1)
    found = {
        name[inside]: value
        for name, value in request.args.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    if len(found) > _MOST_LABELS:
        message = f"metadata: a job carries at most {_MOST_LABELS} pairs; ask for fewer."
        raise BadRequest(message, code="invalid_metadata", param="metadata")
    return found

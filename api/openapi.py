"""The OpenAPI 3.1 document, made from the registered routes: what is served is what is documented."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from flask import Response, current_app, json
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api import shapes
from api.errors import error_type
from api.routes import Route, Routes
from api.services import Services

routes = Routes()

_TITLE = "Plait"
_ABOUT = (
    "Fine-tunes multimodal models as jobs. Files, fine-tuning jobs and models have OpenAI's shapes, so that its stock "
    "client works with `base_url` and `api_key` changed; the fields beyond those are Plait's own. "
    "Every answer carries `x-request-id`; send a well-formed one and it is kept."
)
_REFERENCE = "#/components/schemas/{model}"
_ERRORS = {
    400: "The request is wrong; `error.param` and `errors` name the fields and what they take.",
    401: "No API key, or not a live one.",
    403: "The key lacks the scope that this operation needs.",
    404: "There is no such object, or it is another tenant's.",
    409: "The object's state does not allow it; trying again will not help.",
    412: "It is not what `If-Match` names any more.",
    413: "The body is too large.",
    415: "The content type is not one that this operation reads.",
    416: "The file has no such range.",
    422: "The Idempotency-Key was used with another body.",
    429: "The tenant's share, or its requests of this minute, are used up.",
    500: "The server failed; its log knows the request's id.",
    503: "A part of the server does not answer; try again after Retry-After seconds.",
}
_Shapes = Mapping[Any, dict[str, Any]]


@routes.get("/openapi.json", answer=None, media=("application/json",))
def openapi_json(_plait: Services) -> Response:
    """This document."""
    return Response(current_app.extensions["openapi"](), content_type="application/json")


def describe(served: Iterable[Route]) -> Callable[[], str]:
    """The document's text, made when it is first asked for."""
    return cache(lambda: json.dumps(document(served)))


def document(served: Iterable[Route]) -> dict[str, Any]:
    """OpenAPI 3.1 of these routes."""
    listed = list(served)
    references, definitions = _schemas(listed)
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.rule)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": _TITLE, "version": version("plait-server"), "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": {str(status): _error(status, about) for status, about in _ERRORS.items()},
            "headers": {
                "request-id": {"description": "The request's id.", "schema": {"type": "string"}},
                "retry-after": {"description": "Seconds.", "schema": {"type": "integer"}},
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "`plait-...`"}},
        },
    }


def _schemas(listed: list[Route]) -> tuple[_Shapes, dict[str, Any]]:
    """A reference for each shape, and the definitions that they name."""
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(shapes.Error, "validation")]
    wanted += [(shape, "validation") for route in listed for shape in (route.body, route.form) if shape]
    wanted += [(route.answer, "serialization") for route in listed if route.answer]
    references, definitions = models_json_schema(wanted, ref_template=_REFERENCE)
    return references, definitions["$defs"]


def _operation(route: Route, references: _Shapes) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.name.split(".")[0]],
        "summary": route.view.__doc__,
        "parameters": _parameters(route),
        "responses": {
            **{str(status): _success(route, references, status) for status in route.statuses},
            **_unchanged(route),
            **_failures(route),
        },
        "security": [{"key": [str(route.needs)]}] if route.needs else [],
    }
    if route.body is not None:
        operation["requestBody"] = _body(route, references)
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.parameters
    ]
    in_query = [
        {"name": p.name, "in": p.place, "description": p.about, "schema": p.schema, **_style(p.schema)}
        for p in route.query
    ]
    extra = [_KEY_HEADER] if route.takes_key else []
    return in_path + in_query + extra + ([_TAG_HEADER] if route.tagged else [])


_KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key and body answer with the object that the first request made.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


_TAG_HEADER = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The ETag of an earlier answer: while nothing has changed, the answer is an empty 304.",
    "schema": {"type": "string"},
}


def _style(schema: dict[str, Any]) -> dict[str, Any]:
    return {"style": "deepObject", "explode": True} if schema["type"] == "object" else {}


def _body(route: Route, references: _Shapes) -> dict[str, Any]:
    json_shape, form_shape = (None, route.body) if route.is_form else (route.body, route.form)
    content: dict[str, Any] = {}
    if json_shape is not None:
        content["application/json"] = {"schema": references[json_shape, "validation"]}
    if form_shape is not None:
        content["multipart/form-data"] = {
            "schema": references[form_shape, "validation"],
            "encoding": {
                name: _IS_JSON
                for name in ("schema", "json")
                if name in form_shape.model_json_schema()["properties"]
            },
        }
    return {"required": not route.body_is_optional, "content": content}


_IS_JSON = {"contentType": "application/json"}


def _success(route: Route, references: _Shapes, status: int) -> dict[str, Any]:
    if status == 304:
        return _UNCHANGED
    if route.answer is None:
        content: dict[str, Any] = {kind: {} for kind in route.media or ("application/octet-stream",)}
    else:
        content = {"application/json": {"schema": references[route.answer, "serialization"]}}
        # What a stream or an archive holds, no schema of a whole tells.
        content |= {kind: {} for kind in route.media}
    if status == 307:
        about = (
            "The bytes lie in an object store: fetch them from `Location` (no key needed) within ten minutes."
        )
        return {"description": about, "headers": {**_HEADERS, "Location": _LATER["Location"]}}
    if status == 202:
        about = "Not done yet; ask again at `Location` after `Retry-After` seconds."
        return {"description": about, "headers": {**_HEADERS, **_LATER}, "content": content}
    about = "The part that the header `Range` names." if status == 206 else "As asked."
    return {"description": about, "headers": _HEADERS, "content": content}


def _unchanged(route: Route) -> dict[str, Any]:
    return {"304": _UNCHANGED} if route.tagged else {}


_LATER = {
    "Location": {"description": "Where it is.", "schema": {"type": "string"}},
    "Retry-After": {"$ref": "#/components/headers/retry-after"},
}
_RATE_HEADERS = {
    f"x-ratelimit-{name}-requests": {"description": about, "schema": {"type": "string"}}
    for name, about in {
        "limit": "How many requests the tenant may send at once; on every answer to a tenant with a rate.",
        "remaining": "How many of them are left.",
        "reset": "When all of them are back: `120ms`, `8.64s`, `6m0s`.",
    }.items()
}
_HEADERS = {"x-request-id": {"$ref": "#/components/headers/request-id"}}
_UNCHANGED = {"description": "Nothing has changed.", "headers": _HEADERS}


def _failures(route: Route) -> dict[str, Any]:
    of_key = (401, 403, 429) if route.needs else ()
    of_database = (503,) if route.needs else ()
    of_tag = (412,) if route.tagged else ()
    statuses = sorted({*route.errors, *of_key, *of_database, *of_tag, 500})
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _error(status: int, about: str) -> dict[str, Any]:
    waits = {"Retry-After": {"$ref": "#/components/headers/retry-after"}} if status in (429, 503) else {}
    rates = _RATE_HEADERS if status == 429 else {}
    return {
        "description": f"{about} `error.type` is `{error_type(status)}`.",
        "headers": {**_HEADERS, **waits, **rates},
        "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Error")}}},
    }

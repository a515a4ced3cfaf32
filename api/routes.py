"""The registry of routes: what a handler serves, needs, takes and answers. `api.openapi` documents from it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from flask import Response, request
from pydantic import BaseModel
from werkzeug.exceptions import PreconditionFailed

from domain.access import Scope

Answer = BaseModel | Response


@dataclass(frozen=True)
class Parameter:
    """One parameter of the query (or a header), with its JSON schema."""

    name: str
    about: str
    schema: dict[str, Any]
    place: Literal["query", "header"] = "query"


@dataclass(frozen=True)
class Route:
    method: str
    #: In Flask's words: `/v1/files/<file_id>`.
    rule: str
    view: Callable[..., Answer]
    #: The shape of the answer; None means raw bytes.
    answer: type[BaseModel] | None
    #: The scope that the caller's key must carry; None means that no key is asked for.
    needs: Scope | None = None
    #: The shape of the body, and whether it is a form with a file instead of JSON.
    body: type[BaseModel] | None = None
    is_form: bool = False
    query: tuple[Parameter, ...] = ()
    #: Statuses of errors beyond those that every route may answer.
    errors: tuple[int, ...] = ()
    takes_key: bool = False
    #: The answer carries an ETag, and a caller who has it already is told so with a 304.
    tagged: bool = False
    #: Content types in which the answer comes as well, or instead where there is no shape.
    media: tuple[str, ...] = ()
    #: Statuses of success. A 202 has the same shape, `Location` and `Retry-After`.
    statuses: tuple[int, ...] = (200,)
    body_is_optional: bool = False
    #: The shape of a form that is taken beside the JSON body.
    form: type[BaseModel] | None = None

    @property
    def name(self) -> str:
        """`files.create`: the endpoint of Flask and the operation of OpenAPI."""
        return f"{self.view.__module__.rpartition('.')[2]}.{self.view.__name__}"

    @property
    def parameters(self) -> list[str]:
        """The names in its address, in their order."""
        return re.findall(r"<(?:\w+:)?(\w+)>", self.rule)

    def answer_of(self, *given: Any, **path: str) -> Response:
        response = respond(self.view(*given, **path))
        return _tagged(response) if self.tagged and not response.is_streamed else response


class Routes:
    """The routes of one module, gathered by its decorators."""

    def __init__(self) -> None:
        self._all: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._all)

    def add(self, method: str, rule: str, **about: Any) -> Callable[..., Any]:
        def keep(view: Callable[..., Answer]) -> Callable[..., Answer]:
            self._all.append(Route(method=method, rule=rule, view=view, **about))
            return view

        return keep

    def get(self, rule: str, **about: Any) -> Callable[..., Any]:
        return self.add("GET", rule, **about)

    def post(self, rule: str, **about: Any) -> Callable[..., Any]:
        return self.add("POST", rule, **about)

    def delete(self, rule: str, **about: Any) -> Callable[..., Any]:
        return self.add("DELETE", rule, **about)


def respond(answer: Answer) -> Response:
    if isinstance(answer, Response):
        return answer
    return Response(answer.model_dump_json(by_alias=True), content_type="application/json")


def _tagged(response: Response) -> Response:
    """With the hash of its bytes as ETag, unless it has one; without them for a caller that names the same."""
    if "ETag" in response.headers:
        refuse_other_than(response.get_etag()[0])
        return response
    response.set_etag(sha256(response.get_data()).hexdigest()[:32])
    refuse_other_than(response.get_etag()[0])
    # A copy may be kept, by this caller alone, and must be asked about each time.
    response.headers["Cache-Control"] = "private, no-cache"
    response.make_conditional(request)
    return response


def refuse_other_than(tag: str | None) -> None:
    """Raises a 412 for a caller who names what he has, in `If-Match`, and it is not this any more (RFC 9110, 13.1.1)."""
    if tag is not None and request.if_match and not request.if_match.contains(tag):
        raise PreconditionFailed("This is not what If-Match names any more; ask for it without that header.")


def page_query(most: int = 100, default: int = 20) -> tuple[Parameter, ...]:
    """The two parameters of every list."""
    number = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return (
        Parameter("after", "The id of the last object of the page before.", {"type": "string"}),
        Parameter("limit", "How many objects a page holds at most.", number),
    )

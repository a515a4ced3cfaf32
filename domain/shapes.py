"""What is asked of a user's JSON: objects without unknown fields, and every problem with its path."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from domain.errors import InvalidSpec

S = TypeVar("S", bound=BaseModel)


class Shape(BaseModel):
    """Unknown fields are refused: a misspelt option must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def wrong(field: str, reason: str) -> PydanticCustomError:
    """What a check of several fields raises: the one to blame, by its path from there, and why."""
    return PydanticCustomError("value_error", "{reason}", {"field": field, "reason": reason})


def parse(shape: type[S], body: Any) -> S:
    """`body` as `shape`; raises InvalidSpec with every wrong path and what is allowed there."""
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        problems: dict[str, dict[str, Any]] = {}
        for e in error.errors(include_url=False):
            problem = _problem(shape, e)
            path = problem["path"]
            # Of a field's tried alternatives the last is the one that the user most likely meant; its words are told too.
            problems[path] = _or(problems[path], problem) if path in problems else problem
        raise InvalidSpec(list(problems.values())) from None


def _or(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two alternatives of one field; only of words (`auto`) both are told."""
    if one["code"] != "literal_error":
        return other
    message = other["message"]
    return other | {"message": f"{one['message']}; or {message[:1].lower()}{message[1:]}"}


def _problem(shape: type[BaseModel], error: Any) -> dict[str, Any]:
    parts = [str(p) for p in error["loc"] if not _is_union_branch(p)]
    blamed = error.get("ctx", {}).get("field")
    parts += blamed.split(".") if blamed else []
    message = error["msg"].removeprefix("Value error, ")
    problem = {"path": ".".join(parts) or "body", "code": error["type"], "message": message}
    if error["type"] == "extra_forbidden":
        allowed = allowed_fields(shape, parts[:-1])
        problem |= {"code": "unknown_field", "allowed": allowed}
        problem["message"] = f"unknown field; allowed here: {', '.join(allowed)}"
    return problem


def _is_union_branch(part: str | int) -> bool:
    """pydantic names the tried branch of a union in the path (`literal['auto']`); users need not see it."""
    return isinstance(part, str) and (
        part.startswith(("literal[", "constrained-", "dict[")) or part in ("int", "float", "bool")
    )


def allowed_fields(shape: type[BaseModel], path: list[str]) -> list[str]:
    """The names that the object at `path` takes."""
    for part in path:
        fields = {f.alias or name: f.annotation for name, f in shape.model_fields.items()}
        shape = _model_in(fields[part]) if part in fields else shape
    return sorted(f.alias or name for name, f in shape.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel]:
    """The model inside `X | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        try:
            return _model_in(inner)
        except TypeError:
            continue
    raise TypeError(f"no model in {annotation}")

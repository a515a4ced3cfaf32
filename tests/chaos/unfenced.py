"""Switches the fence off in the process that imports and calls this: each `jobs.fence = ...` of a statement is true.

Only the chaos run starts such processes, to see that it would see what the fence prevents. The product has no such switch.
"""

import re
from typing import Any

from sqlalchemy import Engine, event

_GUARD = re.compile(r"jobs\.fence = (\?|%\(\w+\)s(?:::\w+)?)")


def switch_off() -> None:
    event.listen(Engine, "before_cursor_execute", _without_guard, retval=True)


def _without_guard(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any
) -> tuple[str, Any]:
    # The parameter stays where it was, so that its neighbours keep their places.
    return without_guard(statement), parameters


def without_guard(statement: str) -> str:
    return _GUARD.sub(r"\1 IS NOT NULL", statement)

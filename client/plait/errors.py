"""What goes wrong, told so that the reader knows what to do next. Knows no HTTP library.

PlaitError
├── ConfigError             the address or the key on this machine is missing or broken
├── LocalFileError          a file or folder here cannot be sent, read or written
├── PlaitConnectionError    the server does not answer
└── PlaitAPIError           the server answered, and refused
"""

from collections.abc import Mapping, Sequence
from typing import Any


class PlaitError(Exception):
    """A sentence for the user, and a hint of what to do next where there is one."""

    code = "client_error"
    #: Waiting may be enough: the server restarts or is busy.
    passing = False
    #: Seconds that the server asked to wait.
    retry_after: float | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def lines(self) -> list[str]:
        """The whole story, one line each: what, the details, what to do."""
        return [self.message, *([self.hint] if self.hint else [])]

    def as_dict(self) -> dict[str, Any]:
        return {"message": self.message, "code": self.code, "hint": self.hint}

    def __str__(self) -> str:
        return "\n".join(self.lines())


class ConfigError(PlaitError):
    code = "bad_configuration"


class LocalFileError(PlaitError):
    """`details` are the single problems of a file that has several."""

    code = "local_file"

    def __init__(self, message: str, *, hint: str | None = None, details: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.details = list(details)

    def lines(self) -> list[str]:
        first, *rest = super().lines()
        return [first, *(f"  {detail}" for detail in self.details), *rest]

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | ({"details": self.details} if self.details else {})


class PlaitConnectionError(PlaitError):
    code = "connection_failed"
    passing = True


_HINTS_BY_STATUS = {
    401: "Set PLAIT_API_KEY to a live key, or run in the folder where `plait-server up` runs; "
    "`plait-server keys create` makes a key.",
    403: "Use a key that may do this; `plait-server keys create` makes one.",
    404: "Look at what there is with `plait jobs list`, `plait files list` or `plait models list`.",
    413: "Send less at once, or raise the server's limit.",
    429: "Wait for running jobs to end, or try again later.",
    500: "Look into the server's log for this request id.",
    502: "The server may be starting; try again in a moment.",
    503: "The server may be starting; try again in a moment, and see `plait-server doctor`.",
    504: "The server may be busy; try again in a moment.",
}
_HINTS_BY_CODE = {
    "invalid_spec": "Correct these fields and send the spec again.",
    "model_not_found": "See the models that there are with `plait models list`.",
    "job_not_found": "See the jobs that there are with `plait jobs list --kind all`.",
    "file_not_found": "See the files that there are with `plait files list`.",
    "built_in": "See the models that can be deleted with `plait models list`: their ids begin with ft:.",
    "not_plait": "Is the address that of a Plait server? It ends in /v1: see PLAIT_BASE_URL.",
}


class PlaitAPIError(PlaitError):
    """The server's refusal. `errors` lists each problem of a bad spec: {path, code, message, allowed?}."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        request_id: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.code = code or f"http_{status}"
        self.param = param
        self.errors = [dict(problem) for problem in errors]
        self.request_id = request_id
        self.retry_after = retry_after
        self.passing = status in (429, 502, 503, 504)
        super().__init__(message, hint=hint or self._usual_hint())

    def _usual_hint(self) -> str | None:
        if self.retry_after is not None and self.passing:
            return f"Try again in {self.retry_after:g} s."
        return _HINTS_BY_CODE.get(self.code) or _HINTS_BY_STATUS.get(self.status)

    def lines(self) -> list[str]:
        # With all problems below, the message is the first of them once more.
        head = f"The server refused ({self.status} {self.code})" if self.errors else self.message
        told = [f"{head}:" if self.errors else f"{head} [{self.status} {self.code}]"]
        told += [f"  {_problem(problem)}" for problem in self.errors]
        told += [self.hint] if self.hint else []
        return told + ([f"(request {self.request_id})"] if self.request_id else [])

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {
            "status": self.status,
            "param": self.param,
            "errors": self.errors,
            "request_id": self.request_id,
        }


def _problem(problem: Mapping[str, Any]) -> str:
    """One problem with its path, and the allowed fields unless the message names them already."""
    path, message = problem.get("path") or problem.get("param"), str(problem.get("message", ""))
    allowed = [str(name) for name in problem.get("allowed") or ()]
    if allowed and not all(name in message for name in allowed):
        message += f"; allowed here: {', '.join(allowed)}"
    return f"{path}: {message}" if path else message

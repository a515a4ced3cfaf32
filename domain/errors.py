"""The words in which every floor complains. `api.errors` maps them to HTTP, `worker.keeper` to outcomes.

PlaitError
├── BadRequest            400  the request cannot be understood
│   └── InvalidSpec       400  a job's spec is wrong; `problems` lists every path
├── Unauthorized          401  no key, or not a live one
├── Forbidden             403  the key may not do this
├── NotFound              404  no such thing, or another tenant's
├── Conflict              409  the thing's state does not allow it
├── TooLarge              413  over a size limit
├── UnsupportedMedia      415  not a content type we read
├── Unprocessable         422  understood, but refused
├── OverQuota             429  the tenant's share is used up
│   └── RateLimited       429  the tenant's requests of this minute are
├── Unavailable           503  a part we need does not answer
└── EngineError                a job cannot go on; ends in the job's `error`
"""

from typing import Any


class PlaitError(Exception):
    """Carries what a user needs: a sentence, a stable code, and the field it is about."""

    code = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param


class BadRequest(PlaitError):
    code = "invalid_request"


class InvalidSpec(BadRequest):
    """All that is wrong with a spec at once: `problems` is a list of {path, code, message}."""

    code = "invalid_spec"

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first['path']}: {first['message']}{more}", param=str(first["path"]))
        self.problems = problems


class Unauthorized(PlaitError):
    code = "invalid_api_key"


class Forbidden(PlaitError):
    code = "insufficient_scope"


class NotFound(PlaitError):
    code = "not_found"


class Conflict(PlaitError):
    code = "conflict"


class TooLarge(PlaitError):
    code = "too_large"


class UnsupportedMedia(PlaitError):
    code = "unsupported_media_type"


class Unprocessable(PlaitError):
    code = "unprocessable"


class OverQuota(PlaitError):
    """`retry_after_s` is a fair guess; `passes` says whether waiting alone can help at all."""

    code = "quota_exceeded"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float = 5.0,
        passes: bool = True,
    ) -> None:
        super().__init__(message, code=code, param=param)
        self.retry_after_s = retry_after_s
        self.passes = passes


class RateLimited(OverQuota):
    code = "rate_limit_exceeded"


class Unavailable(PlaitError):
    code = "unavailable"


class EngineError(PlaitError):
    """A job cannot go on. `retryable` says that another try may help (a lost disk, a full GPU)."""

    code = "engine_error"

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, code=code, param=param)
        self.retryable = retryable

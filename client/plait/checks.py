"""What a check of a data set found."""

from dataclasses import dataclass, field
from typing import Any

from plait.job_shapes import Job
from plait.waiting import FINAL

ROLES = ("training", "validation", "test")


@dataclass(frozen=True, slots=True)
class Issue:
    """One problem: where it is (line from 1, column), what it is (code), and what to do (message)."""

    code: str
    message: str
    line: int | None
    column: str | None
    value: str | None
    #: error or warning
    severity: str
    #: The field of the spec that is meant, where it is one.
    param: str | None
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Issue":
        return cls(
            code=raw.get("code") or "",
            message=raw.get("message") or "",
            line=raw.get("line"),
            column=raw.get("column"),
            value=raw.get("value"),
            severity=raw.get("severity") or "error",
            param=raw.get("param"),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class Check:
    """A check job. It succeeds when it has read the data, whatever it found; `is_good` says that nothing was wrong."""

    id: str
    status: str
    #: The id of the file that was read; it may be deleted by now.
    file: str
    rows: int | None
    columns: Any
    classes: Any
    errors: int
    warnings: int
    #: The first 100, unless `client.data` completed them.
    issues: list[Issue]
    issues_total: int
    #: Files with all details; issues.jsonl has every issue.
    result_files: list[str]
    #: {code, message, param} of a check that could not do its work.
    error: dict[str, Any] | None
    #: The server's whole answer.
    raw: dict[str, Any] = field(repr=False)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def is_good(self) -> bool:
        return self.status == "succeeded" and not self.errors

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Check":
        job, result = Job.of(raw), raw.get("result") or {}
        issues = [Issue.of(one) for one in result.get("issues") or ()]
        return cls(
            id=job.id,
            status=job.status,
            file=job.training_file or "",
            rows=result.get("rows"),
            columns=result.get("columns"),
            classes=result.get("classes"),
            errors=result.get("errors") or 0,
            warnings=result.get("warnings") or 0,
            issues=issues,
            issues_total=result.get("issues_total") or len(issues),
            result_files=job.result_files,
            error=job.error,
            raw=raw,
        )

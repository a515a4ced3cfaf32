"""The check of a fine-tune, on the cpu lane: every row, every media header, every encoder. Loads no torch."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from domain.errors import EngineError
from domain.language import settled_columns
from domain.manifest import Code, Issue
from domain.presets import spelled_out
from domain.specs import Multimodal
from domain.towers import Tower, settled_towers
from engine.data.check import Report
from engine.data.issues import Issues
from engine.hub.mirror import resolve
from worker.child import Desk
from worker.handlers.reading import in_order, note, read_through, write_issues

#: Of the issues, as many travel to the keeper, which shows the first few in an event.
ISSUES_TOLD = 100
#: The role a file plays in the job, by the spec's field.
_ROLES = {"training_file": "training", "validation_file": "validation", "multimodal.test_file": "test"}


def validate(desk: Desk) -> None:
    """Ends in `done` with the resolved spec, or in `failed` with every issue of every file."""
    spec = Multimodal.model_validate(desk.spec["multimodal"])
    reports: dict[str, Report] = {}
    for field, file in desk.files.items():
        desk.event("validation", f"Checking {file['filename']}.", file=file["id"])
        # The training file comes first; the others are read as it was, and know its classes.
        report, schema = read_through(
            desk,
            spec,
            file,
            role=_ROLES[field],
            trained=reports.get("training_file"),
            hold_out="validation_file" not in desk.files,
        )
        if field == "training_file":
            # All of it: what the user left open must not be inferred anew from other rows.
            spec = spelled_out(spec.model_copy(update={"schema_": schema}), report.columns)
        spec = spec if spec.task != "auto" else spec.model_copy(update={"task": report.task})
        reports[field] = report
        if desk.should_stop():
            desk.tell("stopped", why=desk.should_stop())
            return
    towers = resolved_towers(spec, reports["training_file"])
    issues = {field: report.issues for field, report in reports.items()}
    absent = {
        "multimodal.towers": Issues(_absent_encoders(desk, towers)),
        "multimodal.language_model": Issues(_absent_language_model(desk, spec)),
    }
    _tell(desk, spec, towers, reports, issues | absent)


def resolved_towers(spec: Multimodal, report: Report) -> dict[str, Tower]:
    """The spec's towers, or one for each column that can be learned from; none of their encoders is left open."""
    towers = spec.towers or {name: Tower() for name in report.used}
    settle = settled_columns if spec.language_model else settled_towers
    return settle(towers, report.columns)


def _absent_encoders(desk: Desk, towers: dict[str, Tower]) -> Iterator[Issue]:
    for name, tower in towers.items():
        if tower.encoder is not None:  # of a number, a category, or a column that is not there
            yield from _absent(desk, tower.encoder, f"multimodal.towers.{name}.encoder", name)


def _absent_language_model(desk: Desk, spec: Multimodal) -> Iterator[Issue]:
    if spec.language_model is not None:
        yield from _absent(desk, spec.language_model.model, "multimodal.language_model.model")


def _absent(desk: Desk, id_: str, path: str, column: str | None = None) -> Iterator[Issue]:
    place = desk.place
    try:
        resolve(
            id_,
            mirror=Path(place["encoders"]),
            allow_hub=place["allow_hub"],
            local_roots=[Path(p) for p in place["local_roots"]],
        )
    except EngineError as error:
        yield Issue(code=error.code, message=error.message, column=column, param=path)


def _tell(
    desk: Desk,
    spec: Multimodal,
    towers: dict[str, Tower],
    reports: dict[str, Report],
    issues: Mapping[str, Issues],
) -> None:
    checked = {desk.files[field]["id"]: note(report) for field, report in reports.items()}
    words: dict[str, Any] = {"checked": checked, "files": write_issues(desk, issues)}
    listed = list(islice(in_order(issues), ISSUES_TOLD))
    shown = {"issues": listed, "issues_total": sum(map(len, issues.values()))}
    if any(found.errors for found in issues.values()):
        desk.tell("failed", error=_summary(listed[0], issues), retryable=False, **shown, **words)
        return
    resolved = spec.model_copy(update={"towers": towers}).model_dump(mode="json", by_alias=True)
    resolved["classes"] = reports["training_file"].classes
    bad = {field: report.bad for field, report in reports.items() if report.bad}
    if bad:
        # The training opens the files again, in another process: it does without the same rows.
        resolved["bad_rows"] = {field: rows.spelled() for field, rows in bad.items()}
    counts = {
        "skipped": sum(len(rows.skipped) for rows in bad.values()),
        "masked": sum(len(rows.masked_rows) for rows in bad.values()),
    }
    desk.tell("done", resolved=resolved, **counts, **shown, **words)


def _summary(first: dict[str, Any], issues: Mapping[str, Issues]) -> dict[str, Any]:
    """The first error speaks for all; its code stays visible when it is the only kind."""
    where = f"line {first['line']}: " if first["line"] else ""
    errors = sum(found.errors for found in issues.values())
    more = f" ({errors} errors in all; the result file issues.jsonl lists them.)" if errors > 1 else ""
    absent = sum(found.counts["error", str(Code.ENCODER_UNAVAILABLE)] for found in issues.values())
    only_encoders = absent == errors
    code = str(Code.ENCODER_UNAVAILABLE) if only_encoders else "invalid_" + _kind(first["param"])
    return {"code": code, "message": f"{where}{first['message']}{more}", "param": first["param"]}


def _kind(param: str) -> str:
    return (
        param if param in ("training_file", "validation_file") else "test_file" if "test" in param else "spec"
    )

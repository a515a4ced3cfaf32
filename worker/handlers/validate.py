"""The check of a fine-tune, on the cpu lane: every row, every media header, every encoder. Loads no torch."""

import json
from pathlib import Path
from typing import Any

from domain.errors import EngineError
from domain.manifest import MODALITIES, Code, Issue, Schema, errors_in
from domain.specs import DEFAULT_ENCODERS, Multimodal, Tower
from engine.data.check import Report, check
from engine.data.manifest import open_dataset
from engine.hub.mirror import resolve
from worker.child import Desk

#: The role a file plays in the job, by the spec's field.
_ROLES = {"training_file": "training", "validation_file": "validation", "multimodal.test_file": "test"}


def validate(desk: Desk) -> None:
    """Ends in `done` with the resolved spec, or in `failed` with every issue of every file."""
    spec = Multimodal.model_validate(desk.spec["multimodal"])
    reports: dict[str, Report] = {}
    for field, file in desk.files.items():
        desk.event("validation", f"Checking {file['filename']}.", file=file["id"])
        # The training file comes first; the others are read as it was, and know its classes.
        report, schema = _check(desk, spec, field, file, reports.get("training_file"))
        spec = spec if spec.schema_ else spec.model_copy(update={"schema_": schema})
        spec = spec if spec.task != "auto" else spec.model_copy(update={"task": report.task})
        reports[field] = report
        if desk.should_stop():
            desk.tell("stopped", why=desk.should_stop())
            return
    towers = resolved_towers(spec, reports["training_file"])
    issues = [(field, issue) for field, report in reports.items() for issue in report.issues]
    issues += [("multimodal.towers", issue) for issue in _absent_encoders(desk, towers)]
    _tell(desk, spec, towers, reports, issues)


def _check(
    desk: Desk, spec: Multimodal, field: str, file: dict[str, Any], trained: Report | None
) -> tuple[Report, Schema]:
    """What the file is, and the schema that it was read by."""
    declared = spec.schema_ or (Schema.model_validate(file["schema"]) if file["schema"] else None)
    with open_dataset(Path(file["path"]), schema=declared, filename=file["filename"]) as dataset:
        report = check(
            dataset,
            spec,
            role=_ROLES[field],
            classes=trained.classes if trained else None,
            hold_out="validation_file" not in desk.files,
            should_stop=lambda: bool(desk.should_stop()),
        )
        return report, dataset.schema


def resolved_towers(spec: Multimodal, report: Report) -> dict[str, Tower]:
    """The spec's towers, or one for each column that an encoder can read."""
    if spec.towers:
        return dict(spec.towers)
    return {
        name: Tower(encoder=DEFAULT_ENCODERS[kind])
        for name, kind in sorted(report.columns.items())
        if kind in MODALITIES
    }


def _absent_encoders(desk: Desk, towers: dict[str, Tower]) -> list[Issue]:
    place, found = desk.place, []
    for name, tower in towers.items():
        try:
            resolve(
                tower.encoder,
                mirror=Path(place["encoders"]),
                allow_hub=place["allow_hub"],
                local_roots=[Path(p) for p in place["local_roots"]],
            )
        except EngineError as error:
            path = f"multimodal.towers.{name}.encoder"
            found.append(Issue(code=error.code, message=error.message, column=name, param=path))
    return found


def _tell(
    desk: Desk,
    spec: Multimodal,
    towers: dict[str, Tower],
    reports: dict[str, Report],
    issues: list[tuple[str, Issue]],
) -> None:
    checked = {desk.files[field]["id"]: _note(report) for field, report in reports.items()}
    listed = [{**issue.as_dict(), "param": issue.param or field} for field, issue in issues]
    errors = errors_in([issue for _, issue in issues])
    if errors:
        _write_issues(desk, listed)
        desk.tell(
            "failed",
            error=_summary(listed, errors),
            retryable=False,
            issues=listed,
            checked=checked,
            files=["results/issues.jsonl"],
        )
        return
    resolved = spec.model_copy(update={"towers": towers}).model_dump(mode="json", by_alias=True)
    classes = reports["training_file"].classes
    desk.tell("done", resolved={**resolved, "classes": classes}, checked=checked, warnings=listed)


def _summary(listed: list[dict[str, Any]], errors: list[Issue]) -> dict[str, Any]:
    """The first error speaks for all; its code stays visible when it is the only kind."""
    first = next(entry for entry in listed if entry["severity"] == "error")
    where = f"line {first['line']}: " if first["line"] else ""
    more = (
        f" ({len(errors)} errors in all; the result file issues.jsonl lists them.)" if len(errors) > 1 else ""
    )
    only_encoders = all(error.code == Code.ENCODER_UNAVAILABLE for error in errors)
    code = str(Code.ENCODER_UNAVAILABLE) if only_encoders else "invalid_" + _kind(first["param"])
    return {"code": code, "message": f"{where}{first['message']}{more}", "param": first["param"]}


def _kind(param: str) -> str:
    return (
        param if param in ("training_file", "validation_file") else "test_file" if "test" in param else "spec"
    )


def _write_issues(desk: Desk, listed: list[dict[str, Any]]) -> None:
    target = desk.folder / "results" / "issues.jsonl"
    target.parent.mkdir()
    target.write_text("".join(json.dumps(entry) + "\n" for entry in listed))


def _note(report: Report) -> dict[str, Any]:
    """What the file's row keeps of its check."""
    errors = len(report.errors)
    return {
        "rows": report.rows,
        "columns": {name: str(kind) for name, kind in report.columns.items()},
        "issues": {"errors": errors, "warnings": len(report.issues) - errors},
        "status": "error" if errors else "processed",
        "status_details": f"{errors} errors in the data" if errors else None,
    }

"""What both kinds of checks do with a file: open it, read it through, and put down what is wrong. Loads no torch."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from domain.manifest import Schema, Severity
from domain.presets import spelled_out
from domain.specs import Multimodal
from engine.data.check import Report, check
from engine.data.decoders.pool import Decoders
from engine.data.issues import Issues
from engine.data.lengths import text_limits
from engine.data.manifest import open_dataset
from engine.data.preview import preview
from engine.hub.mirror import resolve
from worker.child import Desk
from worker.uploads import lookup

ISSUES = "results/issues.jsonl"
PREVIEW = "results/preview.json"
_PROGRESS_S = 0.5


def read_through(
    desk: Desk,
    spec: Multimodal,
    file: dict[str, Any],
    *,
    role: str,
    trained: Report | None = None,
    hold_out: bool = True,
    shown: list[dict[str, Any]] | None = None,
) -> tuple[Report, Schema]:
    """What the file is, and the schema that it was read by; `shown` is filled with its first rows."""
    declared = spec.schema_ or (Schema.model_validate(file["schema"]) if file["schema"] else None)
    path, name = Path(file["path"]), file["filename"]
    with (
        Decoders(seconds=desk.place["decode_timeout_s"]) as decoders,
        open_dataset(
            path, schema=declared, filename=name, uploads=lookup(desk), media=decoders.media
        ) as dataset,
    ):
        types = {name: column.type for name, column in dataset.schema.columns.items()}
        spec = spelled_out(spec, types)
        report = check(
            dataset,
            spec,
            role=role,
            trained=trained,
            hold_out=hold_out,
            text_limits=text_limits(spec, types, lambda encoder: _in_mirror(desk, encoder)),
            progress=_progress(desk),
            should_stop=lambda: bool(desk.should_stop()),
        )
        if shown is not None and not desk.should_stop():
            shown += preview(
                dataset,
                should_stop=lambda: bool(desk.should_stop()),
            )
        return report, dataset.schema


def _in_mirror(desk: Desk, encoder: str) -> Path:
    """Only what is here: nothing is fetched for the sake of a warning."""
    roots = [Path(p) for p in desk.place["local_roots"]]
    return resolve(encoder, mirror=Path(desk.place["encoders"]), allow_hub=False, local_roots=roots)


def _progress(desk: Desk) -> Callable[[int, int], None]:
    """Tells of rows now and then. A small file is done before anybody would look."""
    began = due = time.monotonic()
    due += _PROGRESS_S

    def tell(done: int, total: int) -> None:
        nonlocal due
        instant = time.monotonic()
        if instant >= due:
            due, pace = instant + _PROGRESS_S, done / (instant - began)
            eta = (total - done) / pace if pace else None
            words = {"step": done, "total_steps": total, "samples_per_second": pace, "eta_s": eta}
            desk.tell("progress", progress={"stage": "checking", **words})

    return tell


def in_order(found: Mapping[str, Issues]) -> Iterator[dict[str, Any]]:
    """The issues by file as they are shown: errors first, then file by file and line by line.

    Each names its field of the spec.
    """
    severities: tuple[Severity, ...] = ("error", "warning")
    for severity in severities:
        for field, issues in found.items():
            for issue in issues.ordered(severity):
                yield {**issue.as_dict(), "param": issue.param or field}


def write_issues(desk: Desk, found: Mapping[str, Issues]) -> list[str]:
    """The result file of all issues, if there are any; its name is for the verdict."""
    if not any(found.values()):
        return []
    with _result(desk, ISSUES).open("w") as out:
        out.writelines(json.dumps(entry) + "\n" for entry in in_order(found))
    return [ISSUES]


def write_preview(desk: Desk, shown: Sequence[dict[str, Any]]) -> list[str]:
    """The result file of the first rows, if there are any."""
    if not shown:
        return []
    _result(desk, PREVIEW).write_text(json.dumps({"object": "file.preview", "data": list(shown)}))
    return [PREVIEW]


def _result(desk: Desk, name: str) -> Path:
    target = desk.folder / name
    target.parent.mkdir(exist_ok=True)
    return target


def note(report: Report) -> dict[str, Any]:
    """What the file's row keeps of its check."""
    errors = report.issues.errors
    return {
        "rows": report.rows,
        "columns": {name: str(kind) for name, kind in report.columns.items()},
        "issues": {"errors": errors, "warnings": len(report.issues) - errors},
        "status": "error" if errors else "processed",
        "status_details": f"{errors} errors in the data" if errors else None,
    }

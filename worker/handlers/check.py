"""A check of one file without a training, on the cpu lane. Loads no torch."""

from itertools import islice
from typing import Any

from domain.specs import Multimodal
from worker.child import Desk
from worker.handlers.reading import in_order, note, read_through, write_issues, write_preview

#: Of the issues, as many are in the job's row; all of them are in its result file.
ISSUES_IN_RESULT = 100


def check(desk: Desk) -> None:
    """Ends in `done` with what was found, however bad: the check itself did its work."""
    spec, file = Multimodal.model_validate(desk.spec["multimodal"]), desk.files["file"]
    shown: list[dict[str, Any]] = []
    report, _ = read_through(desk, spec, file, role=desk.spec["role"], shown=shown)
    if why := desk.should_stop():
        desk.tell("stopped", why=why)
        return
    found = {"file": report.issues}
    about = note(report)
    desk.tell(
        "done",
        result={
            "rows": about["rows"],
            "columns": about["columns"],
            "towers": sorted(report.used),
            "classes": report.classes,
            **about["issues"],
            "skipped": len(report.bad.skipped),
            "masked": len(report.bad.masked_rows),
            "issues": list(islice(in_order(found), ISSUES_IN_RESULT)),
            "issues_total": len(report.issues),
        },
        checked={file["id"]: about},
        files=[*write_preview(desk, shown), *write_issues(desk, found)],
    )

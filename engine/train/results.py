"""The files that a run leaves for people: its steps, for spreadsheets and TensorBoard, and the report of what came of it."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.report.events import write_events
from engine.report.page import page


def write_steps(folder: Path, history: Sequence[dict[str, float]]) -> None:
    """One line a logged step, one column a metric; what was not measured at a step stays empty."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {name: None for row in history for name in row}
    with (folder / "results.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=["step", "epoch", *sorted(set(names) - {"step", "epoch"})])
        table.writeheader()
        table.writerows(history)


def write_curves(folder: Path, history: Sequence[dict[str, float]], epoch_seconds: Sequence[float]) -> None:
    """All steps for a spreadsheet and for TensorBoard."""
    write_steps(folder, history)
    write_events(folder, history, epoch_seconds)


def write_report(folder: Path, report: dict[str, Any], history: Sequence[dict[str, float]]) -> None:
    """report.json, and report.html for people. Half a surrogate pair in a name is written as JSON's escape."""
    folder.mkdir(parents=True, exist_ok=True)
    report = _as_json(report)
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / "report.json").write_bytes(text.encode("utf-8", "backslashreplace"))
    (folder / "report.html").write_text(page(report, history), encoding="utf-8")


def _as_json(value: Any) -> Any:
    """What overflowed is null: JSON knows no infinity."""
    if isinstance(value, dict):
        return {name: _as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

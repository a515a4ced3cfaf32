"""report.html: one file that needs nothing else and runs nothing, made of what report.json and the steps say."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from markupsafe import Markup

from domain.tasks import METRICS
from engine.report import charts
from engine.report.confused import READABLE

_HERE = Path(__file__).parent
#: Rows of a table that a person reads; report.json has all.
_LISTED = 100
#: Shades of a table of confusions.
_SHADES = 10

History = Sequence[Mapping[str, float]]


def page(report: Mapping[str, Any], history: History) -> str:
    """Of any task: a section without numbers is not there. What users named is escaped, and no script can run."""
    css = (_HERE / "page.css").read_text()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    measured = report.get("test") or report.get("validation") or {}
    return _template().render(
        css=Markup(css),
        policy=policy,
        report=report,
        measured=measured,
        headline=_headline(report, measured),
        curves=_curves(report, history),
        confusion=_confusion(report, measured),
        per_class=_per_class(measured),
        bars=_bars(report),
        settings=_settings(report),
    )


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        # A task that does not have a number leaves its place empty.
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: charts.plain(value) if type(value) is str else value,
    )
    environment.filters["number"] = charts.number
    environment.filters["size"] = _size
    environment.filters["seconds"] = _seconds
    environment.globals |= {
        "reliability": charts.reliability,
        "histogram": charts.histogram,
        "scatter": charts.scatter,
    }
    return environment.get_template("page.html.j2")


def _headline(report: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any] | None:
    """The task's first metric that was measured, as the largest number of the page."""
    found = measured.get("metrics", {})
    listed = [name for task, names in METRICS.items() if task == report["task"] for name in names]
    name = next((n for n in (*listed, *found) if n in found), None)
    return {"name": name, "value": found[name]} if name else None


def _curves(report: Mapping[str, Any], history: History) -> list[dict[str, Any]]:
    def points(name: str) -> list[tuple[float, float]]:
        return [(row["step"], row[name]) for row in history if name in row]

    best = str(report["hyperparameters"].get("metric_for_best_model", ""))
    chosen = best if best.startswith("valid_") else f"valid_{best}"
    losses = {"training": points("train_loss"), "validation": points("valid_loss")}
    found = [{"title": "Loss", "picture": charts.curves(losses, x="step", y="loss")}]
    if chosen != "valid_loss":
        picture = charts.curves({chosen: points(chosen)}, x="step", y=chosen)
        found.append({"title": f"{chosen}, by which the best step was chosen", "picture": picture})
    return [told for told in found if told["picture"]]


def _confusion(report: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any] | None:
    matrix, names = measured.get("confusion_matrix"), report.get("classes") or []
    if not matrix:
        return None
    if len(names) > READABLE:
        return {"pairs": measured.get("most_confused", [])}
    rows = [
        {"name": name, "cells": [{"count": n, "shade": _shade(n, sum(row))} for n in row]}
        for name, row in zip(names, matrix, strict=True)
    ]
    return {"names": names, "rows": rows, "pairs": measured.get("most_confused", [])[:5]}


def _shade(count: int, total: int) -> int:
    return round(_SHADES * count / total) if total else 0


def _per_class(measured: Mapping[str, Any]) -> dict[str, Any] | None:
    told = measured.get("per_class")
    if not told:
        return None
    # Of many, those that need looking at.
    rows = told if len(told) <= READABLE else sorted(told, key=lambda row: row.get("f1", 0))[:_LISTED]
    return {"rows": rows, "more": len(told) - len(rows), "worst_first": len(told) > READABLE}


def _bars(report: Mapping[str, Any]) -> Markup | None:
    told = report.get("unimodal_baselines")
    if not told:
        return None
    rows = [{"name": t["tower"], "value": t["value"], "interval": t["interval"]} for t in told["towers"]]
    if "all_towers" in told:
        joint = told["all_towers"]
        rows.append({"name": "all, linear probe", "value": joint["value"], "interval": joint["interval"]})
    fused = told["fused"]
    rows.append(
        {"name": "this model", "value": fused["value"], "interval": fused["interval"], "class": "own"}
    )
    return charts.bars([row for row in rows if row["value"] is not None])


def _settings(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    parts = {name: report.get(name) or {} for name in ("fusion", "loss", "hyperparameters")}
    return [(f"{name}.{key}", v) for name, part in parts.items() for key, v in part.items() if v is not None]


def _size(count: float | None) -> str:
    return "–" if count is None else f"{count / 2**20:,.0f} MiB"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f} s" if value < 60 else f"{int(value) // 60} min {int(value) % 60} s"

"""Draws `docs/kernels.svg` of what was measured: `python -m benchmarks.kernels.plot`."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "kernels"

COLOURS = {"eager": "#b9b9b9", "max-autotune": "#9ecae1", "compile": "#4292c6", "ours": "#d94801"}


def main() -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "plait"
    from matplotlib import pyplot

    table = times(RESULTS / "ops.csv")
    figure, axes = pyplot.subplots(figsize=(9, 0.52 * len(table) + 1.4))
    draw(axes, table)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "kernels.svg", metadata={"Date": None})


def times(path: Path) -> Mapping[str, Mapping[str, float]]:
    """Problem -> provider -> microseconds of forward and backward (forward alone where that is all)."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("us")]
    found: dict[str, dict[str, float]] = {}
    for mode in ("fwd", "full"):
        for row in rows:
            if row["mode"] == mode:
                found.setdefault(f"{row['op']}: {row['problem']}", {})[row["provider"]] = float(row["us"])
    return found


def draw(axes: Any, table: Mapping[str, Mapping[str, float]]) -> None:
    """Bars by problem, each the time as a multiple of ours."""
    names: Sequence[str] = list(table)[::-1]
    height = 0.8 / len(COLOURS)
    for place, (provider, colour) in enumerate(COLOURS.items()):
        at = [y + 0.4 - height * (place + 0.5) for y, name in enumerate(names) if provider in table[name]]
        ratios = [table[name][provider] / table[name]["ours"] for name in names if provider in table[name]]
        axes.barh(at, ratios, height, color=colour, label=provider)
    axes.axvline(1, color=COLOURS["ours"], linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel(
        "time of forward + backward, as a multiple of ours (log scale; right of 1 is slower than ours)"
    )
    axes.legend(fontsize=7, loc="lower right")


if __name__ == "__main__":
    main()

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

    table = times(RESULTS / "ops.csv", RESULTS / "eager.csv")
    figure, axes = pyplot.subplots(figsize=(9, 0.52 * len(table) + 1.4))
    draw(axes, table)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "kernels.svg", metadata={"Date": None})


def times(*paths: Path) -> Mapping[str, Mapping[str, float]]:
    """Problem -> provider -> microseconds of forward and backward (forward alone where that is all that was timed)."""
    rows = [row for path in paths if path.exists() for row in csv.DictReader(path.open()) if row.get("us")]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        modes = found.setdefault(f"{row['op']}: {row['problem']}", {})
        modes.setdefault(row["mode"], {})[row["provider"]] = float(row["us"])
    last = {name: modes.get("full") or modes["fwd"] for name, modes in found.items()}
    return {name: providers for name, providers in last.items() if "ours" in providers}


def draw(axes: Any, table: Mapping[str, Mapping[str, float]]) -> None:
    """Bars by problem, each the time as a multiple of ours."""
    names: Sequence[str] = list(table)[::-1]
    height = 0.8 / len(COLOURS)
    for place, (provider, colour) in enumerate(COLOURS.items()):
        at = [y + 0.4 - height * (place + 0.5) for y, name in enumerate(names) if provider in table[name]]
        ratios = [table[name][provider] / table[name]["ours"] for name in names if provider in table[name]]
        if at:
            axes.barh(at, ratios, height, color=colour, label=provider)
    axes.axvline(1, color=COLOURS["ours"], linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("forward + backward, as a multiple of ours (log scale)")
    axes.legend(fontsize=7, loc="lower right")


if __name__ == "__main__":
    main()

"""Writes `docs/kernels-measured.md` from the CSVs: `python -m benchmarks.kernels.tables`. Losing cells are in it, too."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "kernels"
PAGE = ROOT / "docs" / "kernels-measured.md"

Row = Mapping[str, str]

INTRODUCTION = """# The kernels, measured

Written by `python -m benchmarks.kernels.tables` from `benchmarks/results/kernels/*.csv`, which `make bench-kernels` fills. {machine}

Ceilings of that card, measured first: {ceilings}.

Times are medians of CUDA-graph replays over inputs larger than the L2 cache, launch gaps left out; `host` is how long the call keeps the
CPU. `full` is forward and backward. `of compile` is the time of `torch.compile` over ours: above 1 we are faster, below 1 we lose. The floor is the
fewest bytes over the measured bandwidth, or the operations over the measured rate, whichever is longer. `estimate` was written down before
anything was measured.
{remarks}"""


def main() -> None:
    PAGE.write_text(page(RESULTS))


def page(results: Path) -> str:
    """The whole document."""
    ceilings, ops, steps, eager = (
        _rows(results / f"{name}.csv") for name in ("ceilings", "ops", "steps", "eager")
    )
    ops += eager
    parts = [
        INTRODUCTION.format(
            machine=_machine(ceilings[0]), ceilings=_ceilings(ceilings[0]), remarks=_remarks(results)
        )
    ]
    for op in dict.fromkeys(row["op"] for row in ops):
        parts.append(f"## {op}\n\n" + _table(_op_lines([row for row in ops if row["op"] == op])))
    chunks = _rows(results / "clip-chunks.csv")
    if chunks:
        lines = [
            ("chunk MB", "logits budget GB", "µs"),
            *((c["chunk_mb"], c["logits_budget_gb"], c["us"]) for c in chunks),
        ]
        parts.append("## clip_loss, N=32768: tiles and budgets\n\n" + _table(iter(lines)))
    parts.append("## Whole training steps\n\n" + _STEPS + _table(_step_lines(steps)))
    return "\n".join(parts)


_STEPS = """Wall time with the host's part, features from the cache, towers frozen; `fusion` is the op and what surrounds it in the fusion, forward and
backward. `torch` is our reference and not eager PyTorch. With towers in the loop fusion is, by estimate, below 1 % of a step.

"""


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _remarks(results: Path) -> str:
    """What a reader must know of this run in particular."""
    path = results / "remarks.md"
    return f"\n{path.read_text()}" if path.exists() else ""


def _machine(row: Row) -> str:
    return (
        f"Measured on one {row['gpu']} (driver {row['driver']}) with torch {row['torch']} and triton {row['triton']} "
        f"on {row['day']}."
    )


def _ceilings(row: Row) -> str:
    found = [f"copy {row['copy_tb_s']} TB/s"]
    for name, value in row.items():
        if name.startswith("gemm_"):
            found.append(f"bf16 product {name.split('_')[1]} {float(value):.0f} TFLOP/s")
    return ", ".join(found)


def _op_lines(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    yield "problem", "mode", "provider", "µs", "host µs", "peak MB", "of compile", "of floor", "estimate µs"
    times = {(row["problem"], row["mode"], row["provider"]): float(row["us"]) for row in rows if row["us"]}
    for problem, mode in dict.fromkeys((row["problem"], row["mode"]) for row in rows):
        for row in rows:
            if (row["problem"], row["mode"]) == (problem, mode):
                yield _op_line(row, times.get((problem, mode, "compile")))


def _op_line(row: Row, compiled: float | None) -> Sequence[str]:
    start = (row["problem"], row["mode"], row["provider"])
    if not row["us"]:
        return *start, row.get("note") or "", "", "", "", "", row["estimate_us"]
    took, floor = float(row["us"]), float(row["floor_us"])
    return (
        *start,
        _short(took),
        _short(float(row["host_us"])),
        _short(float(row["peak_mb"])),
        f"{compiled / took:.2f}" if compiled and row["provider"] == "ours" else "",
        f"{floor / took:.0%}" if floor else "",
        row["estimate_us"],
    )


def _step_lines(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    yield "step", "batch", "kernels", "step µs", "fusion µs", "share", "peak MB"
    for row in rows:
        yield (
            row["step"],
            row["batch"],
            row["backend"],
            _short(float(row["us"])),
            _short(float(row["fusion_us"])),
            f"{float(row['fusion_share']):.0%}",
            _short(float(row["peak_mb"])),
        )


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 100 else f"{number:.0f}"


def _table(lines: Iterator[Sequence[str]]) -> str:
    head, *body = lines
    rule = "|" + "---|" * len(head)
    return "\n".join(
        ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(line) + " |" for line in body), ""]
    )


if __name__ == "__main__":
    main()

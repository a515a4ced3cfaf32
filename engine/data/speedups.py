"""What cached features gained, as the job that made them measured it. Kept beside them, for jobs that find them."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engine.data.durable import write_durably


def speedup_record(root: Path, towers: Sequence[str], keys: Sequence[str]) -> Path:
    """Where the gain of these towers' cache over these inputs is kept."""
    name = hashlib.sha256("\n".join([*sorted(towers), "", *sorted(keys)]).encode()).hexdigest()
    return root / "speedups" / f"{name}.json"


def kept_speedup(record: Path) -> float | None:
    try:
        return float(json.loads(record.read_text())["cached_epoch_speedup"])
    except (OSError, ValueError, KeyError):
        return None


def keep_speedup(record: Path, value: float) -> None:
    """On a disk that is full it is not kept."""
    with suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        write_durably(record, json.dumps({"cached_epoch_speedup": value}).encode())

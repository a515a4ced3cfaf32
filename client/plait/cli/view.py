"""What a view of a job is, and the words of its lines."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from plait.job_shapes import Event, Update


class View(NamedTuple):
    """Where a watch is seen."""

    show: Callable[[Update], None]
    note: Callable[[str], None]


def event_line(event: Event) -> str:
    level = "" if event.level == "info" else f"{event.level}: "
    return f"{time.strftime('%H:%M:%S', time.localtime(event.created_at))}  {level}{event.message}"


def issue_line(issue: dict[str, Any]) -> str:
    """`line 17, column image: message [code]`, with what is known of the place."""
    places = [f"{name} {issue[name]}" for name in ("line", "column") if issue.get(name) is not None]
    place = f"{', '.join(places)}: " if places else ""
    warning = "warning: " if issue.get("severity") == "warning" else ""
    return f"{warning}{place}{issue.get('message')} [{issue.get('code')}]"


#: Where there is no room for all facts, these go one after the other.
_SPARED = ("samples", "epoch", "loss", "ETA")


def facts(progress: dict[str, Any], loss: float | None, width: int | None = None) -> str:
    """What stands beside the bar: `epoch 2/5  step 60/150  412 samples/s  loss 0.1234  ETA 0:42`.

    In `width` characters: less is told, and nothing is cut.
    """
    told = {}
    for what, total in (("epoch", "n_epochs"), ("step", "total_steps")):
        if progress.get(what) is not None:
            told[what] = f"{what} {progress[what]}" + (f"/{progress[total]}" if progress.get(total) else "")
    if progress.get("samples_per_second"):
        told["samples"] = f"{progress['samples_per_second']:.0f} samples/s"
    if loss is not None:
        told["loss"] = f"loss {loss:.4f}"
    if progress.get("eta_s") is not None:
        minutes, seconds = divmod(round(progress["eta_s"]), 60)
        told["ETA"] = f"ETA {minutes}:{seconds:02}"
    for spared in _SPARED:
        if width is not None and len("  ".join(told.values())) > width:
            told.pop(spared, None)
    return "  ".join(told.values())

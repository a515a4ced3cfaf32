"""What training says: its progress, and how it ended."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

#: Why to stop, or None. Asked at least once a micro-batch.
ShouldStop = Callable[[], str | None]

Stage = Literal["loading", "encoding", "training", "evaluating"]


@dataclass(frozen=True)
class Progress:
    stage: Stage
    epoch: int | None = None
    n_epochs: int | None = None
    step: int = 0
    total_steps: int | None = None
    samples_per_second: float | None = None
    eta_s: float | None = None
    metrics: dict[str, float] | None = None
    message: str | None = None


@dataclass(frozen=True)
class Finished:
    """`metrics` are the best checkpoint's; `resolved` is the spec with every `auto` decided."""

    steps: int
    metrics: dict[str, float]
    resolved: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stopped:
    """Asked to stop, for `why`, after `steps` whole steps."""

    steps: int
    why: str


class StopAsked(Exception):
    """Carries a stop out of loops that have nothing to save."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def heed(should_stop: ShouldStop) -> None:
    why = should_stop()
    if why is not None:
        raise StopAsked(why)

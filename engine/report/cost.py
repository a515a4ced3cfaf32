"""What a run took: seconds by phase, rows a second, memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Clock:
    """Seconds of each phase of this attempt, as far as they are over; a phase that runs counts until now."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        began, before = time.monotonic(), self.seconds.get(phase, 0.0)
        try:
            yield
        finally:
            self.seconds[phase] = before + time.monotonic() - began

    def note(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = seconds


def cost(
    clock: Clock, device: torch.device, *, training: float, rows_trained: float, waited: float
) -> dict[str, Any]:
    """`training` are the seconds of all passes over training rows, of earlier attempts too; so are the other two."""
    seconds = {**clock.seconds, "training": training}
    on_gpu = device.type == "cuda"
    return {
        "wall_seconds": seconds,
        # A training has its GPU alone, from the encoding on.
        "gpu_seconds": sum(s for phase, s in seconds.items() if phase != "loading") if on_gpu else None,
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "samples_per_second": rows_trained / training if training else None,
        "data_wait_fraction": waited / training if training else None,
        "peak_memory_bytes": _peak_of_process(),
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device) if on_gpu else None,
    }


def _peak_of_process() -> int:
    """The resident size at its largest. Linux counts in KB, macOS in bytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024

"""Every launch configuration that is shipped, as ahead-of-time cases: an op's typical launches in half precision."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

from kernels import tuned


def shipped(device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    for path in sorted(tuned.FOLDER.glob("*.json")):
        for kernel, buckets in json.loads(path.read_text()).items():
            for bucket, config in buckets.items():
                for label, run in _typical(kernel.split(".")[0], device, full="bits=32" in bucket):
                    yield f"{kernel} {bucket}: {label}", partial(_forced, kernel, config, run)


def _typical(op: str, device: str, *, full: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Those of float32 for a configuration that was measured in it, those of bfloat16 else."""
    for label, run in import_module(f"kernels.{op}.typical").typical(device):
        if not label.endswith(" float16") and ("float32" in label) == full:
            yield label, run


def _forced(kernel: str, config: dict[str, int], run: Callable[[], Any]) -> None:
    with tuned.forced(kernel, config):
        run()

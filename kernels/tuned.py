"""The launch configuration of a kernel: measured for this device if there is a file of it, else its default."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

Config = Mapping[str, int]

#: `<device>.json`: kernel -> bucket -> configuration. `make tune-kernels` writes it.
FOLDER = Path(__file__).parent / "configs"

#: Kernel -> the configuration that all its launches take, and the buckets they were of.
_forced: dict[str, tuple[Config, set[str]]] = {}


def tuned(kernel: str, problem: Mapping[str, int], default: Config) -> dict[str, int]:
    """Tile sizes, `num_warps` and `num_stages` for one launch of `kernel`.

    `problem` are the sizes that the best configuration depends on. Each counts as the power of two at or above it, so
    that few configurations, and few compilations, serve all sizes. What the device's file leaves out of a
    configuration, and every bucket that it lacks, is as in `default`.
    """
    if kernel in _forced:
        config, asked = _forced[kernel]
        asked.add(bucket(problem))
        return {**default, **config}
    measured = _measured(device()).get(kernel, {}).get(bucket(problem), {})
    return {**default, **measured}


@contextmanager
def forced(kernel: str, config: Config) -> Iterator[set[str]]:
    """Every launch of `kernel` takes `config` until the block ends: for the tuner, and for tests.

    What is yielded fills with the buckets of the launches that were made.
    """
    before = _forced.get(kernel)
    _forced[kernel] = config, set()
    try:
        yield _forced[kernel][1]
    finally:
        del _forced[kernel]
        if before is not None:
            _forced[kernel] = before


def bucket(problem: Mapping[str, int]) -> str:
    """The name under which a file holds the configuration of such a problem: `rows=256 width=1024`."""
    return " ".join(f"{name}={power_of_two(size)}" for name, size in sorted(problem.items()))


def power_of_two(size: int) -> int:
    """The smallest one that is not below `size`; 1 for sizes below that."""
    return 1 << max(size - 1, 0).bit_length()


@cache
def device() -> str:
    """The name of this process's first GPU as files are named: `nvidia_h200`; empty if there is none."""
    return slug(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else ""


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@cache
def _measured(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if name and path.exists() else {}

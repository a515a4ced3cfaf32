"""A run's whole state as a folder: safetensors and JSON, nothing that could run code on loading."""

import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from domain.errors import EngineError
from engine.data.durable import sync_folder, write_durably

VERSION = 1

_AVERAGE = "average.safetensors"

Tensors = dict[str, Tensor]


@dataclass
class Memory:
    """What a run remembers beside tensors. The loop changes it; everything in it is JSON."""

    step: int = 0
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    latest_metrics: dict[str, float] = field(default_factory=dict)
    #: Evaluations since the best one.
    stale: int = 0
    #: Of the training rows' passes; the last one may be under way.
    epoch_seconds: list[float] = field(default_factory=list)
    waited_seconds: float = 0.0
    #: The same by epoch; fewer numbers than epochs in what an older Plait wrote.
    epoch_waits: list[float] = field(default_factory=list)
    #: Since the last line of the log.
    loss_sum: float = 0.0
    loss_steps: int = 0
    #: The rows of results.csv.
    history: list[dict[str, float]] = field(default_factory=list)
    #: Of fp16's gradients; empty in other precisions.
    scaling: dict[str, float] = field(default_factory=dict)
    #: Rows at once, since so many as the plan says did not fit in memory; 0: as the plan says.
    micro_batch: int = 0


class Rng(NamedTuple):
    """Every generator that training may draw from. Cheap to take: it is taken at each step."""

    python: Any
    numpy: Any
    torch: Tensor
    cuda: tuple[Tensor, ...]


@dataclass(frozen=True)
class Snapshot:
    """Everything that a run needs to go on as if it had never stopped."""

    memory: Memory
    weights: Tensors
    best: Tensors
    optimiser: Tensors
    rng: Rng
    #: What the loop itself needs to be the same in the run that goes on: rows, batch size, accumulation.
    shape: Mapping[str, int]
    #: All else that must be; empty in what an older Plait wrote. See `engine.train.sameness`.
    run: Mapping[str, Any] = field(default_factory=dict)
    #: The weights' moving average; empty without one.
    average: Tensors = field(default_factory=dict)


def write(folder: Path, snapshot: Snapshot) -> None:
    """`folder` holds the whole snapshot or does not exist."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    state = {
        "version": VERSION,
        "memory": asdict(snapshot.memory),
        "rng": _rng_as_json(snapshot.rng),
        "shape": dict(snapshot.shape),
        "run": dict(snapshot.run),
    }
    for name in ("weights", "best", "optimiser"):
        write_durably(draft / f"{name}.safetensors", save(getattr(snapshot, name)))
    if snapshot.average:
        write_durably(draft / _AVERAGE, save(snapshot.average))
    write_durably(draft / "state.json", json.dumps(state).encode())
    draft.rename(folder)
    sync_folder(folder.parent)


def remove(folder: Path) -> None:
    """First under another name: nobody finds half a checkpoint."""
    doomed = folder.with_name(f".{folder.name}.doomed")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def read(folder: Path) -> Snapshot:
    try:
        state = json.loads((folder / "state.json").read_text())
        if state["version"] > VERSION:
            raise EngineError(
                "checkpoint_too_new",
                f"checkpoint of version {state['version']}: this Plait reads up to {VERSION}; update it",
            )
        parts = {name: load_file(folder / f"{name}.safetensors") for name in ("weights", "best", "optimiser")}
        average = load_file(folder / _AVERAGE) if (folder / _AVERAGE).exists() else {}
        return Snapshot(
            Memory(**state["memory"]),
            rng=_rng_from_json(state["rng"]),
            shape=state["shape"],
            run=state.get("run", {}),
            average=average,
            **parts,
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise EngineError("checkpoint_unreadable", f"{folder} cannot be read: {error}") from error


def rng_state() -> Rng:
    cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else ()
    return Rng(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)


def restore_rng(state: Rng) -> None:
    random.setstate(state.python)
    np.random.set_state(state.numpy)
    torch.set_rng_state(state.torch)
    if torch.cuda.is_available() and len(state.cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(list(state.cuda))


def _rng_as_json(state: Rng) -> dict[str, Any]:
    version, words, gauss = state.python
    name, keys, *rest = state.numpy
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, keys.tolist(), *rest],
        "torch": state.torch.numpy().tobytes().hex(),
        "cuda": [s.numpy().tobytes().hex() for s in state.cuda],
    }


def _rng_from_json(state: dict[str, Any]) -> Rng:
    version, words, gauss = state["python"]
    name, keys, *rest = state["numpy"]
    return Rng(
        (version, tuple(words), gauss),
        (name, np.array(keys, dtype=np.uint32), *rest),
        _bytes(state["torch"]),
        tuple(_bytes(s) for s in state["cuda"]),
    )


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)

"""Checkpoints: everything to go on, nothing that could run code."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from domain.errors import EngineError
from engine.train import checkpoint
from engine.train.checkpoint import Memory, Snapshot

SHAPE = {"rows": 24, "batch_size": 4, "accumulation": 1}


def _snapshot() -> Snapshot:
    memory = Memory(
        step=3, best_metrics={"valid_loss": 0.1 + 0.2}, history=[{"step": 3, "train_loss": 1 / 3}]
    )
    weights = {"head.weight": torch.randn(2, 3)}
    return Snapshot(
        memory, weights, {}, {"head.weight/exp_avg": torch.randn(2, 3)}, checkpoint.rng_state(), SHAPE
    )


def test_a_snapshot_comes_back_as_it_was(tmp_path: Path) -> None:
    written = _snapshot()

    checkpoint.write(tmp_path / "step-3", written)
    read = checkpoint.read(tmp_path / "step-3")

    assert read.memory == written.memory
    assert read.shape == written.shape
    assert torch.equal(read.weights["head.weight"], written.weights["head.weight"])
    assert torch.equal(read.optimiser["head.weight/exp_avg"], written.optimiser["head.weight/exp_avg"])


def test_every_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.manual_seed(1)
    checkpoint.write(tmp_path / "step-3", _snapshot())
    expected = (random.random(), np.random.rand(), torch.rand(3).tolist())
    torch.manual_seed(2)

    checkpoint.restore_rng(checkpoint.read(tmp_path / "step-3").rng)

    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == expected


def test_a_checkpoint_holds_safetensors_and_json_only(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "step-3", _snapshot())

    assert {p.suffix for p in (tmp_path / "step-3").iterdir()} == {".safetensors", ".json"}
    assert [p.name for p in tmp_path.iterdir()] == ["step-3"]


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "step-3", _snapshot())
    path = tmp_path / "step-3" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))

    with pytest.raises(EngineError) as refused:
        checkpoint.read(tmp_path / "step-3")

    assert refused.value.code == "checkpoint_too_new"


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors"])
def test_a_torn_checkpoint_is_refused_by_name(tmp_path: Path, name: str) -> None:
    checkpoint.write(tmp_path / "step-3", _snapshot())
    path = tmp_path / "step-3" / name
    path.write_bytes(path.read_bytes()[:-3])

    with pytest.raises(EngineError) as refused:
        checkpoint.read(tmp_path / "step-3")

    assert refused.value.code == "checkpoint_unreadable"


def test_a_checkpoint_of_before_waits_were_told_by_epoch_goes_on(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "step-3", _snapshot())
    file = tmp_path / "step-3" / "state.json"
    state = json.loads(file.read_text())
    del state["memory"]["epoch_waits"]
    file.write_text(json.dumps(state))

    memory = checkpoint.read(tmp_path / "step-3").memory

    assert memory.epoch_waits == []
    assert memory.step == 3

"""The TensorBoard event file, read by TensorBoard's own reader."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.report.events import FILE_NAME, tag_of, write_events

HISTORY = [
    {"step": 5, "epoch": 0.5, "train_loss": 2.0, "lr": 1e-3},
    {"step": 10, "epoch": 1.0, "train_loss": 1.5, "lr": 5e-4, "valid_f1_macro": 0.25},
    {
        "step": 20,
        "epoch": 2.0,
        "train_loss": 1.0,
        "lr": 0.0,
        "accuracy@missing:<b>é": 0.5,
        "test_accuracy": 0.75,
    },
]


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def test_tensorboard_reads_every_scalar_at_its_step(tmp_path: Path) -> None:
    write_events(tmp_path, HISTORY, [10.0, 4.0])

    found = read(tmp_path)

    tags = set(found.Tags()["scalars"])
    assert tags == {"train/loss", "lr", "valid/f1_macro", "test/accuracy", "accuracy@missing:<b>é"}
    loss = found.Scalars("train/loss")
    assert [(e.step, e.value) for e in loss] == [(5, 2.0), (10, 1.5), (20, 1.0)]
    assert [e.wall_time - loss[0].wall_time for e in loss] == pytest.approx([0, 5, 9], abs=1e-3)


def test_written_again_it_is_the_later_one(tmp_path: Path) -> None:
    write_events(tmp_path, HISTORY, [10.0, 4.0])
    write_events(tmp_path, HISTORY[:1], [10.0])

    assert len(read(tmp_path).Scalars("train/loss")) == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_a_run_that_logged_nothing_has_a_file_without_scalars(tmp_path: Path) -> None:
    write_events(tmp_path, [], [])

    assert read(tmp_path).Tags()["scalars"] == []


def test_tags_are_grouped_by_what_was_measured() -> None:
    assert [tag_of(n) for n in ("train_loss", "valid_loss", "lr", "grad_norm", "test_ece")] == [
        "train/loss",
        "valid/loss",
        "lr",
        "grad_norm",
        "test/ece",
    ]

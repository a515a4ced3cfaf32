"""What a training tells its keeper."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from engine.train.run import Finished, Progress, Stopped
from worker.handlers import fine_tune


class Listener:
    """A desk at which nobody works: all that is said there is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder
        self.said: list[Any] = []

    def tell(self, say: str, **words: Any) -> None:
        self.said.append((say, words))

    def event(self, name: str, message: str, **more: Any) -> None:
        self.said.append((name, message, more))

    def publish_checkpoint(self, *words: Any) -> None:
        self.said.append(words)


def test_a_measure_that_is_no_number_is_left_out_and_the_rest_is_told(tmp_path: Path) -> None:
    # PostgreSQL refuses a document that holds one: the checkpoint would never be published.
    desk, metrics = Listener(tmp_path), {"valid_loss": math.nan, "valid_r2": -math.inf, "valid_mae": 0.5}
    for folder in ("step-1", "model", "results"):
        (tmp_path / folder).mkdir()

    fine_tune._report(desk, Progress("training", step=1, metrics=metrics, message="Step 1."))  # type: ignore[arg-type]
    fine_tune._save(desk, tmp_path / "step-1", {"step": 1, "metrics": metrics})  # type: ignore[arg-type]
    fine_tune._finish(desk, Finished(1, metrics, {}))  # type: ignore[arg-type]

    told = json.dumps(desk.said, allow_nan=False)
    assert told.count("valid_mae") == 4
    assert "valid_loss" not in told


class Assigned(Listener):
    """A desk with an assignment, of which nothing but the settings matters."""

    def __init__(self, folder: Path, storage: dict[str, Any]) -> None:
        super().__init__(folder)
        self.spec, self.resolved, self.start, self.checkpoints, self.model = {}, {}, None, [], None
        self.files = {"training_file": {"path": "data.zip", "filename": "data.zip", "sha256": "0" * 64}}
        self.storage = {"shared_cache": False} | storage
        self.place = {
            "decode_timeout_s": 60.0,
            "kernels": "auto",
            "cache": str(folder / "cache"),
            "cache_bytes": 12345,
            "encoders": "encoders",
            "allow_hub": False,
            "local_roots": [],
        }

    def should_stop(self) -> str:
        return "cancel"


def test_a_training_is_told_how_large_its_caches_may_be_and_warns_by_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def trained(_: Any, **options: Any) -> Stopped:
        given.update(options)
        options["warn"]("the disk is full")
        return Stopped(0, "cancel")

    monkeypatch.setattr(fine_tune, "train", trained)
    desk = Assigned(tmp_path, {})
    fine_tune.fine_tune(desk)  # type: ignore[arg-type]

    assert given["cache_bytes"] == 12345
    assert given["shared"] is None
    assert ("training.cache", "the disk is full", {"level": "warn"}) in desk.said


def test_a_training_shares_its_caches_where_the_settings_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        fine_tune, "train", lambda _, **options: given.update(options) or Stopped(0, "cancel")
    )
    names = ("s3_bucket", "s3_prefix", "s3_endpoint_url", "s3_region", "s3_access_key", "s3_secret_key")
    storage = dict.fromkeys(names, "x") | {"shared_cache": True, "s3_endpoint_url": "http://127.0.0.1:1"}

    fine_tune.fine_tune(Assigned(tmp_path, storage))  # type: ignore[arg-type]

    assert type(given["shared"]).__name__ == "SharedCache"

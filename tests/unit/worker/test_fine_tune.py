"""What a training tells its keeper."""

import json
import math
from pathlib import Path
from typing import Any

from engine.train.run import Finished, Progress
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

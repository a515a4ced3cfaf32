"""Whole trainings with the losses that they told: for tests of how towers are trained."""

import csv
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domain.specs import Multimodal
from engine.models.multimodal import Multimodal as Network
from engine.models.store import load_model
from engine.train.run import Finished, Progress, Stopped, train


@dataclass
class Tuning:
    """A folder for runs over one data set."""

    folder: Path
    encoders: dict[str, Path]
    data: Path
    said: list[Progress] = field(default_factory=list)

    def go(
        self, towers: dict[str, Any], out: str = "out", *, stop_after: int | None = None, **options: Any
    ) -> Finished | Stopped:
        """A run; what it says is kept until the next one. `stop_after`: so many lines of the log."""
        self.said.clear()
        hyper = {"n_epochs": 2, "batch_size": 4, "logging_steps": 1} | options.pop("hyper", {})
        spec = {"towers": towers, "fusion": {"dim": 8}, "hyperparameters": hyper} | options.pop("spec", {})
        return train(
            Multimodal.model_validate(spec),
            training=self.data,
            encoders=self.encoders.__getitem__,
            cache=self.folder / "cache",
            out=self.folder / out,
            seed=1,
            report=self.said.append,
            should_stop=lambda: "drain" if len(self.losses()) == stop_after else None,
            **options,
        )

    def losses(self, name: str = "train_loss") -> list[float]:
        return [p.metrics[name] for p in self.said if p.metrics and name in p.metrics]

    def messages(self) -> str:
        return "\n".join(p.message for p in self.said if p.message)

    def model(self, out: str = "out") -> Network:
        return load_model(self.folder / out / "model", self.encoders.__getitem__)[0]

    def report(self, out: str = "out") -> dict[str, Any]:
        return dict(json.loads((self.folder / out / "results/report.json").read_text()))

    def resumes_exactly(self, towers: dict[str, Any], stop_after: int = 5, **options: Any) -> None:
        """Stopped, gone on and unbroken, losses and weights are equal."""
        self.go(towers, "whole", **options)
        whole = self.losses(), self.losses("valid_loss")
        self.go(towers, "first", stop_after=stop_after, **options)
        first = self.losses(), self.losses("valid_loss")
        resume = self.folder / f"first/checkpoints/step-{stop_after}"
        self.go(towers, "second", resume=resume, **options)
        assert first[0]
        assert self.losses()
        assert (first[0] + self.losses(), first[1] + self.losses("valid_loss")) == whole
        weights = [
            (self.folder / out / "model/model.safetensors").read_bytes() for out in ("whole", "second")
        ]
        assert weights[0] == weights[1]


def words(path: Path, rows: int, label: Callable[[str], str], length: int = 8, seed: int = 0) -> Path:
    """A table of random words of the letters a and b, and what `label` says of each."""
    draw = random.Random(seed)
    texts = ["".join(draw.choice("ab") for _ in range(length)) for _ in range(rows)]
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([("text", "label"), *((text, label(text)) for text in texts)])
    return path

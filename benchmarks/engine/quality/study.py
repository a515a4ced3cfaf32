"""Runs a study: arms (specs) x folds x seeds by the real engine, each result written down at once.

A run that is in the table already is not made again, so that a study may be broken off and gone on with. The cache of
features is shared by all of its runs.
"""

import csv
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine.quality.folds import read_rows, split_rows, write_zip
from domain.specs import Multimodal as Spec
from engine.data.caches import open_caches
from engine.data.dataset import Examples
from engine.data.splits import open_splits
from engine.hub.mirror import resolve
from engine.models import build
from engine.models.fusion import Fusion
from engine.models.fusion.imputing import Imputing, StandIn
from engine.models.multimodal import Multimodal
from engine.models.store import load_model
from engine.train import metrics
from engine.train.prepare import prepare
from engine.train.run import CACHE_BYTES, Finished, train

ROOT = Path(__file__).parents[3]
FIELDS = ("arm", "fold", "seed", "condition", "rows", "right", "accuracy", "seconds")
WHOLE = "whole"


@dataclass(frozen=True)
class Arm:
    """One way to train; `imputing` is what it puts in the place of the engine's own network of mm-gan."""

    name: str
    spec: Mapping[str, Any]
    imputing: Callable[..., Fusion] = Imputing


@dataclass(frozen=True)
class Study:
    name: str
    data: Path
    group: str
    folds: int
    work: Path
    out: Path

    @property
    def table(self) -> Path:
        return self.out / f"{self.name}_runs.csv"

    @property
    def answers(self) -> Path:
        """Which rows were answered rightly, a line a run: too long for a table."""
        return self.work / f"{self.name}_answers.jsonl"

    def run(self, arms: Sequence[Arm], folds: Sequence[int], seeds: Sequence[int]) -> None:
        for fold in folds:
            with self._zipped(fold) as data:
                for seed in seeds:
                    for arm in arms:
                        if not self._is_done(arm.name, fold, seed):
                            self._note(arm.name, fold, seed, *self._measured(arm, data, seed))

    @contextmanager
    def _zipped(self, fold: int) -> Iterator[Path]:
        target = self.work / f"{self.name}_{fold}.zip"
        self.work.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            part = target.with_suffix(f".part{os.getpid()}")
            write_zip(self.data, split_rows(read_rows(self.data), self.group, self.folds, fold), part)
            part.replace(target)
        yield target

    def _measured(self, arm: Arm, data: Path, seed: int) -> tuple[dict[str, list[bool]], float]:
        """By condition which test rows were answered rightly, and the seconds of training."""
        out = self.work / f"{self.name}_out_{os.getpid()}"
        shutil.rmtree(out, ignore_errors=True)
        spec, began = Spec.model_validate(arm.spec), time.monotonic()
        with _in_place(arm.imputing):
            ending = train(spec, training=data, encoders=find, cache=self.work / "cache", out=out, seed=seed)
            seconds = time.monotonic() - began
            assert isinstance(ending, Finished)
            found = tested(out / "model", data, self.work / "cache", seed)
        shutil.rmtree(out)
        return found, seconds

    def _is_done(self, arm: str, fold: int, seed: int) -> bool:
        return any(
            (row["arm"], row["fold"], row["seed"]) == (arm, str(fold), str(seed)) for row in self.runs()
        )

    def runs(self) -> list[dict[str, str]]:
        if not self.table.exists():
            return []
        with self.table.open(newline="") as file:
            return list(csv.DictReader(file))

    def _note(self, arm: str, fold: int, seed: int, found: Mapping[str, list[bool]], seconds: float) -> None:
        with self.answers.open("a") as file:
            for condition, right in found.items():
                bits = "".join(str(int(r)) for r in right)
                line = {"arm": arm, "fold": fold, "seed": seed, "condition": condition, "right": bits}
                file.write(json.dumps(line) + "\n")
        self.out.mkdir(parents=True, exist_ok=True)
        is_new = not self.table.exists()
        with self.table.open("a", newline="") as file:
            table = csv.DictWriter(file, FIELDS)
            if is_new:
                table.writeheader()
            for condition, right in found.items():
                row = (arm, fold, seed, condition, len(right), sum(right), _share(right), round(seconds, 1))
                table.writerow(dict(zip(FIELDS, row, strict=True)))
                print(*row, flush=True)


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4)


def find(name: str) -> Path:
    return resolve(name, mirror=ROOT / ".plait" / "encoders", allow_hub=False)


def tested(folder: Path, data: Path, cache: Path, seed: int) -> dict[str, list[bool]]:
    """Which of the test rows the model in `folder` answers rightly: with all towers, and without each.

    Of mm-gan also with its token alone, or zeros, in the place of what it imputes: it was not trained with those.
    """
    model, card = load_model(folder, find)
    with ExitStack() as files:
        caches = files.enter_context(open_caches(cache, CACHE_BYTES, None, print))
        splits = open_splits(files, card.spec, data, None, None, seed)
        test = prepare(model, splits, caches, report=lambda _: None, should_stop=lambda: None).test
        found = {WHOLE: _right(model, test)}
        for place, name in enumerate(model.names if len(model.names) > 1 else ()):
            left = replace(test, present=test.present & (torch.arange(len(model.names)) != place))
            found[f"without {name}"] = _right(model, left)
            for stand_in in _others(model.fusion):
                found[f"without {name}, {stand_in} put in"] = _right(model, left, stand_in)
        return found


def _others(fusion: Fusion) -> tuple[StandIn, ...]:
    is_imputing = isinstance(fusion, Imputing) and fusion.stand_in == "generator"
    return ("zero", "token") if is_imputing else ()


def _right(model: Multimodal, examples: Examples, stand_in: StandIn | None = None) -> list[bool]:
    fusion = model.fusion
    if stand_in is not None and isinstance(fusion, Imputing):
        before, fusion.stand_in = fusion.stand_in, stand_in
        try:
            return _right(model, examples)
        finally:
            fusion.stand_in = before
    return (metrics.predict(model, examples, lambda: None).argmax(1) == examples.targets).tolist()


@contextmanager
def _in_place(imputing: Callable[..., Fusion]) -> Iterator[None]:
    """The engine's builder makes `imputing` for mm-gan."""
    before = build.Imputing
    vars(build)["Imputing"] = imputing
    try:
        yield
    finally:
        vars(build)["Imputing"] = before

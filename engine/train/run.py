"""A whole fine-tune from files to a model folder: what a worker, a test or a notebook calls. Knows no job."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domain.bad_rows import BadRows
from domain.errors import EngineError
from domain.specs import Multimodal
from domain.towers import MOST_TOWERS, Tower, settled_towers
from engine.data.caches import open_caches
from engine.data.collate import AHEAD, MOST_AHEAD, Batch, Epochs, Slice, shuffled, slices
from engine.data.dataset import Examples
from engine.data.media import IN_PLACE, Media
from engine.data.shared import Shared, Warn
from engine.data.splits import Splits, open_splits
from engine.data.targets import Goal
from engine.data.uploads import Lookup
from engine.models.build import build_model
from engine.models.joint import JointSpace
from engine.models.multimodal import Multimodal as Network
from engine.models.pools import POOLS
from engine.train import checkpoint, metrics, precision, results
from engine.train.beginning import standardise
from engine.train.contrastive import Contrast
from engine.train.finish import finish
from engine.train.loop import Batches, Evaluate, fine_tune
from engine.train.losses import Criterion, criterion
from engine.train.plan import Plan, make_plan, resolved
from engine.train.prepare import prepare
from engine.train.sameness import describe, refuse_another
from engine.train.start import Taken, open_start, take_over
from engine.train.threads import one_thread
from engine.train.words import Finished, Progress, ShouldStop, StopAsked, Stopped
from kernels import dispatch

__all__ = ["Finished", "Progress", "Stopped", "train"]

#: Of each of the two caches: features of some millions of rows; what was used longest ago goes first.
CACHE_BYTES = 20 << 30

Report = Callable[[Progress], None]
#: Hears of a checkpoint's folder and of {"step", "metrics"}, once all of it is on disk.
Save = Callable[[Path, dict[str, Any]], None]


def train(
    spec: Multimodal,
    *,
    training: Path,
    validation: Path | None = None,
    test: Path | None = None,
    encoders: Callable[[str], Path],
    cache: Path,
    out: Path,
    seed: int = 0,
    bad_rows: Mapping[str, BadRows] | None = None,
    names: Mapping[str, str] | None = None,
    uploads: Lookup | None = None,
    resume: Path | None = None,
    start: Path | None = None,
    data: Mapping[str, str] | None = None,
    report: Report = lambda _: None,
    save: Save | None = None,
    decided: Callable[[dict[str, Any]], None] = lambda _: None,
    media: Media = IN_PLACE,
    should_stop: ShouldStop = lambda: None,
    device: str = "auto",
    cache_bytes: int = CACHE_BYTES,
    shared: Shared | None = None,
    warn: Warn = lambda _: None,
) -> Finished | Stopped:
    """Fills `out` with `checkpoints/`, `model/` and `results/`; on a stop the last checkpoint is there.

    `bad_rows` are what a check decided to do without, by file: `training_file`, `validation_file`,
    `multimodal.test_file`.
    `names` are what those files were called when they were uploaded: a stored file has no name of its own. `uploads`
    looks up the files that cells name by their ids.
    `start` is the folder of a model whose weights training starts from, column by column; what it needs of that is in `out`.
    `data` are those files' sha256 by the same names, if known: a checkpoint is not taken for other rows' run.
    `save` hears of each checkpoint, and whoever hears decides which are kept; else the newest
    `save_total_limit` are.
    `decided` hears the spec with every `auto` replaced, before the first step.
    `media` are decoded in this process unless `Decoders.media` is given, which sets limits of time and memory.
    `cache` is a folder that all jobs of a machine share; `shared` is what several machines do, if anything.
    `warn` hears, once each, what a cache can no longer do: a full disk ends no job.
    """
    snapshot = checkpoint.read(resume) if resume else None
    dispatch.forget()
    with ExitStack() as files:
        caches = files.enter_context(open_caches(cache, cache_bytes, shared, warn))
        report(Progress("loading"))
        splits = open_splits(files, spec, training, validation, test, seed, bad_rows, names, uploads, media)
        spec = spec.model_copy(update={"towers": _towers(spec, splits)})
        spec = spec.settled(splits.goal.task)
        place = _device(device)
        numbers = precision.resolve(spec.hyperparameters.precision, place)
        live = _encoded_each_time(spec, splits)
        plan = make_plan(spec, len(splits.train), numbers, live)
        spec = resolved(spec, plan)
        decided(spec.model_dump(mode="json", by_alias=True))
        _seed(seed)
        folders = {name: encoders(t.encoder) for name, t in sorted(spec.towers.items()) if t.encoder}
        model = build_model(spec, splits.schema, len(splits.goal.classes), folders, splits.statistics)
        model = model.to(place)
        loss = _loss(spec, splits, model, plan)
        started = _started(start, model, spec, splits, report)
        run = {
            **describe(spec, splits, model, seed, data or {}),
            **({"model": started.digest} if started else {}),
        }
        if snapshot:
            refuse_another(snapshot.run, run)
        try:
            inputs = prepare(
                model, splits, caches, report=report, should_stop=should_stop, read=media.read, live=live
            )
            if isinstance(model.fusion, JointSpace) and not (snapshot or started):
                standardise(model, model.fusion, inputs.train, numbers, should_stop)
        except StopAsked as asked:
            return Stopped(snapshot.memory.step if snapshot else 0, asked.why)
        caches.make_room()
        # What came before (a full or an empty cache) must not move the draws of training.
        _seed(seed)
        batches = _batches(inputs.train, plan, seed, _workers(place))
        if isinstance(batches, Epochs):
            files.callback(batches.close)
        with one_thread() if inputs.train.is_cached else nullcontext():
            ending, memory = fine_tune(
                model,
                batches,
                plan,
                criterion=loss,
                evaluate=_validator(splits.goal, inputs.validation, loss, plan, should_stop),
                report=report,
                save=Checkpoints(out / "checkpoints", run, save, spec.hyperparameters.save_total_limit),
                should_stop=should_stop,
                resume=snapshot,
            )
        if isinstance(ending, Stopped):
            results.write_steps(out / "results", memory.history)
            return ending
        return finish(
            model,
            spec,
            splits,
            inputs,
            plan,
            memory,
            loss,
            out=out,
            report=report,
            should_stop=should_stop,
            started=started.as_dict() if started else None,
        )


def _started(
    folder: Path | None, model: Network, spec: Multimodal, splits: Splits, report: Report
) -> Taken | None:
    if folder is None:
        return None
    taken = take_over(open_start(folder), model, spec, splits.schema, splits.goal.classes, splits.statistics)
    report(Progress("loading", message=taken.message))
    return taken


def _loss(spec: Multimodal, splits: Splits, model: Network, plan: Plan) -> Criterion:
    if not isinstance(model.fusion, JointSpace):
        return criterion(spec.loss, splits.goal, splits.targets[: len(splits.train)])
    return Contrast(model.fusion, plan.batch_size)


def _encoded_each_time(spec: Multimodal, splits: Splits) -> list[str]:
    """What a trained pool makes of each of several films in a cell is in no cache."""
    pools = [name for name, tower in spec.towers.items() if tower.pool in POOLS]
    return [name for name in pools if any(example.count(name) > 1 for example in splits.all)]


def _towers(spec: Multimodal, splits: Splits) -> dict[str, Tower]:
    """The spec's, or one for each column that can be learned from; nothing of them is left open."""
    types = {name: column.type for name, column in splits.schema.columns.items()}
    for path, reason in spec.tower_misfits(types):
        raise EngineError("invalid_spec", reason, param=f"multimodal.{path}")
    chosen = spec.towers or {name: Tower() for name in splits.used}
    if not chosen:
        raise EngineError(
            "invalid_spec", "the data has no column that can be learned from", param="multimodal"
        )
    if len(chosen) > MOST_TOWERS:
        message = f"{len(chosen)} columns can be learned from, and a model has at most {MOST_TOWERS} towers; name them"
        raise EngineError("invalid_spec", message, param="multimodal.towers")
    return settled_towers(chosen, types)


class Checkpoints:
    """Writes `step-N` folders and tells of each. With nobody to tell, it keeps the newest `limit` itself."""

    def __init__(self, folder: Path, run: Mapping[str, Any], tell: Save | None, limit: int) -> None:
        self._folder, self._run, self._tell, self._limit = folder, run, tell, limit
        self._kept: list[Path] = []

    def __call__(self, snapshot: checkpoint.Snapshot) -> None:
        path = self._folder / f"step-{snapshot.memory.step}"
        if path in self._kept:
            return
        checkpoint.write(path, replace(snapshot, run=self._run))
        self._kept.append(path)
        if self._tell is not None:
            self._tell(path, {"step": snapshot.memory.step, "metrics": snapshot.memory.latest_metrics})
            return
        while len(self._kept) > self._limit:
            checkpoint.remove(self._kept.pop(0))


def _batches(examples: Examples, plan: Plan, seed: int, workers: int = AHEAD) -> Batches:
    def fetch(piece: Slice) -> tuple[Slice, Batch]:
        return piece, examples.batch(piece.rows)

    def pieces(epoch: int, first_step: int) -> Iterator[Slice]:
        order = shuffled(len(examples), seed, epoch)
        return slices(order, plan.batch_size, plan.accumulation, first_step)

    if examples.is_cached:
        return lambda epoch, first_step: map(fetch, pieces(epoch, first_step))
    return Epochs(fetch, pieces, plan.n_epochs, workers)


def _workers(place: torch.device) -> int:
    """Beside a GPU the cores have nothing else to do."""
    return AHEAD if place.type == "cpu" else min(MOST_AHEAD, max(AHEAD, torch.get_num_threads()))


def _validator(
    goal: Goal, examples: Examples, loss: Criterion, plan: Plan, should_stop: ShouldStop
) -> Evaluate | None:
    if len(examples) == 0:
        return None

    def evaluate(model: Network) -> dict[str, float]:
        outputs = metrics.predict(model, examples, should_stop, plan.precision)
        found = metrics.scores(goal, outputs, examples.targets, loss)
        return {f"valid_{name}": value for name, value in found.items()}

    return evaluate


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)

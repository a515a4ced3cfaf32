"""A whole fine-tune from files to a model folder: what a worker, a test or a notebook calls. Knows no job."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domain.bad_rows import BadRows
from domain.errors import EngineError
from domain.language import settled_columns
from domain.presets import spelled_out
from domain.specs import Multimodal
from domain.towers import MOST_TOWERS, Tower, settled_towers
from engine.data.augment import Amounts
from engine.data.caches import open_caches
from engine.data.collate import AHEAD, MOST_AHEAD, Batch, Epochs, Slice, shuffled, slices
from engine.data.conversations import Conversations
from engine.data.dataset import Examples
from engine.data.media import IN_PLACE, Media
from engine.data.shared import Shared, Warn
from engine.data.splits import Splits, open_splits
from engine.data.targets import Goal
from engine.data.uploads import Lookup
from engine.models.joint import JointSpace
from engine.models.multimodal import Multimodal as Network
from engine.models.opening import open_model
from engine.models.pools import POOLS
from engine.models.recompute import recompute_towers
from engine.models.vision_language import VisionLanguage
from engine.report.cost import Clock
from engine.report.features import starting_weights
from engine.train import answers, checkpoint, estimate, metrics, precision, results
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
    clock, began = Clock(), time.monotonic()
    with ExitStack() as files:
        caches = files.enter_context(open_caches(cache, cache_bytes, shared, warn))
        report(Progress("loading"))
        splits = open_splits(files, spec, training, validation, test, seed, bad_rows, names, uploads, media)
        spec = spelled_out(spec, {name: column.type for name, column in splits.schema.columns.items()})
        spec = spec.model_copy(update={"towers": _towers(spec, splits)})
        spec = spec.settled(splits.goal.task)
        place = _device(device)
        numbers = precision.resolve(spec.hyperparameters.precision, place)
        live = _encoded_each_time(spec, splits)
        plan = make_plan(spec, len(splits.train), numbers, live)
        is_auto = spec.hyperparameters.batch_size == "auto"
        spec = resolved(spec, plan)
        decided(spec.model_dump(mode="json", by_alias=True))
        _seed(seed)
        model = open_model(spec, splits.schema, len(splits.goal.classes), encoders, splits.statistics)
        model = model.to(place)
        if spec.hyperparameters.gradient_checkpointing:
            encoding = {name for name in model.names if spec.towers[name].encoder}
            for message in recompute_towers(model, encoding - model.frozen):
                report(Progress("loading", message=message))
        loss = _loss(spec, splits, model, plan)
        started = _started(start, model, spec, splits, report)
        run = {
            **describe(spec, splits, model, seed, data or {}),
            **({"model": started.digest} if started else {}),
        }
        if snapshot:
            refuse_another(snapshot.run, run)
        clock.note("loading", time.monotonic() - began)
        try:
            with clock.during("encoding"):
                inputs = prepare(
                    model, splits, caches, report=report, should_stop=should_stop, read=media.read, live=live
                )
            if isinstance(model.fusion, JointSpace) and not snapshot:
                kept = started.projected if started else []
                standardise(model, model.fusion, inputs.train, numbers, should_stop, kept)
        except StopAsked as asked:
            return Stopped(snapshot.memory.step if snapshot else 0, asked.why)
        caches.make_room()
        before = starting_weights(model) if spec.report.unimodal_baselines else {}
        at_once = 0 if snapshot else _rows_at_once(model, inputs.train, plan, loss, is_auto, report)
        # What came before (a full or an empty cache) must not move the draws of training.
        _seed(seed)
        batches = _batches(inputs.train, plan, seed, _workers(place), _changes(spec, splits))
        if isinstance(batches, Epochs):
            files.callback(batches.close)
        with one_thread() if inputs.train.is_cached and spec.language_model is None else nullcontext():
            ending, memory = fine_tune(
                model,
                batches,
                plan,
                criterion=loss,
                evaluate=_timed(_validator(splits.goal, inputs.validation, loss, plan, should_stop), clock),
                report=report,
                save=Checkpoints(out / "checkpoints", run, save, spec.hyperparameters.save_total_limit),
                should_stop=should_stop,
                resume=snapshot,
                at_once=at_once,
                halves=not isinstance(loss, Contrast),
            )
        if isinstance(ending, Stopped):
            results.write_curves(out / "results", memory.history, memory.epoch_seconds)
            return ending
        return finish(
            *(model, spec, splits, inputs, plan, memory, loss),
            start=before,
            clock=clock,
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
    towers = {name: tower for name, tower in spec.towers.items() if tower.encoder}
    pools = [name for name, tower in towers.items() if spec.language_model or tower.pool in POOLS]
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
    return settled_columns(chosen, types) if spec.language_model else settled_towers(chosen, types)


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


def _rows_at_once(
    model: Network, examples: Examples, plan: Plan, loss: Criterion, is_auto: bool, report: Report
) -> int:
    """Fewer than the plan's batch, where that is Plait's to choose and a GPU has no room for it; 0: the plan's.

    Of a contrastive loss always the plan's: of fewer rows it would be another one.
    """
    if examples.is_cached:
        return 0
    found = estimate.measured(estimate.counted(model, plan), model, examples, plan, loss)
    rows, device = plan.batch_size, next(model.parameters()).device
    if is_auto and device.type == "cuda" and not isinstance(loss, Contrast):
        rows = found.most_rows(rows, estimate.free_bytes(device))
    report(Progress("loading", message=found.words(rows)))
    return 0 if rows == plan.batch_size else rows


def _changes(spec: Multimodal, splits: Splits) -> dict[str, Amounts]:
    """By column: how its values are changed at random in training."""
    told = {
        name: tower.augment.amounts(splits.schema.columns[name].type)
        for name, tower in sorted(spec.towers.items())
        if tower.augment is not None
    }
    return {name: amounts for name, amounts in told.items() if amounts}


def _batches(
    examples: Examples,
    plan: Plan,
    seed: int,
    workers: int = AHEAD,
    changes: Mapping[str, Amounts] | None = None,
) -> Batches:
    def fetch(item: tuple[int, Slice]) -> tuple[Slice, Batch]:
        epoch, piece = item
        return piece, examples.changed(changes or {}, seed, epoch).batch(piece.rows)

    def pieces(epoch: int, first_step: int, at_once: int) -> Iterator[tuple[int, Slice]]:
        order = shuffled(len(examples), seed, epoch)
        cut = slices(order, plan.batch_size, plan.accumulation, first_step, at_once)
        return ((epoch, piece) for piece in cut)

    if examples.is_cached:
        return lambda epoch, first_step, at_once: map(fetch, pieces(epoch, first_step, at_once))
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
        if isinstance(model, VisionLanguage) and isinstance(examples, Conversations):
            found, _ = answers.measured(model, examples, should_stop, plan.precision)
        else:
            outputs = metrics.predict(model, examples, should_stop, plan.precision)
            found = metrics.scores(goal, outputs, examples.targets, loss)
        return {f"valid_{name}": value for name, value in found.items()}

    return evaluate


def _timed(evaluate: Evaluate | None, clock: Clock) -> Evaluate | None:
    if evaluate is None:
        return None

    def timed(model: Network) -> dict[str, float]:
        with clock.during("evaluating"):
            return evaluate(model)

    return timed


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)

"""A fine-tune's training, on the train lane: spec -> engine -> artifacts. The only handler that loads torch."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from db.artifacts import Artifacts, is_whole, seal
from domain.bad_rows import BadRows
from domain.errors import EngineError
from domain.specs import Multimodal
from engine.data.decoders.pool import Decoders
from engine.data.shared import Shared
from engine.hub.mirror import resolve
from engine.train.run import Finished, Progress, train
from kernels import dispatch
from worker.child import Desk
from worker.uploads import lookup


def fine_tune(desk: Desk) -> None:
    """Ends in `done` with the model's folder and metrics, or in `stopped` with its last checkpoint told."""
    place = desk.place
    dispatch.use(place["kernels"])
    resolved = {k: v for k, v in desk.resolved.items() if k not in ("classes", "bad_rows")}
    bad_rows = {field: BadRows.read(rows) for field, rows in desk.resolved.get("bad_rows", {}).items()}

    with Decoders(seconds=place["decode_timeout_s"]) as decoders:
        ending = train(
            Multimodal.model_validate(resolved),
            **_files(desk),
            encoders=lambda name: resolve(
                name,
                mirror=Path(place["encoders"]),
                allow_hub=place["allow_hub"],
                local_roots=[Path(p) for p in place["local_roots"]],
            ),
            cache=Path(place["cache"]),
            cache_bytes=place["cache_bytes"],
            shared=_shared(desk),
            warn=lambda message: desk.event("training.cache", message, level="warn"),
            out=desk.folder,
            seed=desk.spec.get("seed") or 0,
            bad_rows=bad_rows,
            uploads=lookup(desk),
            names={field: file["filename"] for field, file in desk.files.items()},
            data=_sums(desk),
            resume=_checkpoint(desk),
            start=_start(desk),
            report=lambda progress: _report(desk, progress),
            save=lambda folder, about: _save(desk, folder, about),
            decided=lambda spec: desk.tell("resolved", resolved=desk.resolved | spec),
            media=decoders.media,
            should_stop=desk.should_stop,
        )
    if isinstance(ending, Finished):
        _finish(desk, ending)
    else:
        desk.tell("stopped", why=desk.should_stop())


def _shared(desk: Desk) -> Shared | None:
    if not desk.storage["shared_cache"]:
        return None
    # boto3 takes a second and 30 MB: only who has a bucket pays for it.
    from worker.shared_cache import open_shared_cache

    return open_shared_cache(desk.storage)


def _checkpoint(desk: Desk) -> Path | None:
    """The newest one whose bytes are what was published; what is passed over, an event tells.

    Raises EngineError for a damaged one that the user asked for: training must not begin anew in silence.
    """
    for folder in desk.checkpoints:
        if is_whole(folder):
            desk.event("training.resumed", f"Goes on from checkpoint {folder.name}.")
            return folder
        message = f"Checkpoint {folder.name} is damaged or gone; an earlier one is tried."
        desk.event("training.checkpoint_damaged", message, level="warn")
    if desk.spec.get("resume_from_checkpoint") and not (desk.start and is_whole(desk.start)):
        message = "the bytes of the checkpoint to start from are damaged or gone; start from another one"
        raise EngineError("checkpoint_unreadable", message, param="resume_from_checkpoint")
    if desk.start is not None:
        desk.event("training.resumed", f"Goes on from checkpoint {desk.start.name} of another job.")
    elif desk.checkpoints:
        desk.event("training.restarted", "No checkpoint is whole; training begins anew.", level="warn")
    return desk.start


def _start(desk: Desk) -> Path | None:
    """The model that training starts from, if its bytes are what was stored."""
    if not desk.model:
        return None
    folder = Path(desk.model["folder"])
    if not is_whole(folder):
        message = f"the bytes of {desk.model['id']} are damaged or gone; start from another model"
        raise EngineError("model_unreadable", message, param="model")
    return folder


def _sums(desk: Desk) -> dict[str, str]:
    """Of the files that a run which goes on must have too; on others it may well be tested."""
    return {field: file["sha256"] for field, file in desk.files.items() if field != "multimodal.test_file"}


def _files(desk: Desk) -> dict[str, Any]:
    paths = {field: Path(file["path"]) for field, file in desk.files.items()}
    return {
        "training": paths["training_file"],
        "validation": paths.get("validation_file"),
        "test": paths.get("multimodal.test_file"),
    }


def _save(desk: Desk, folder: Path, about: dict[str, Any]) -> None:
    """Returns once the job's row names the checkpoint."""
    seal(folder)
    desk.publish_checkpoint(Artifacts(desk.store).ref(folder), about["step"], _numbers(about["metrics"]))


def _numbers(metrics: dict[str, float] | None) -> dict[str, Any]:
    """A loss that ran away is NaN, which no JSON knows: a database that refused it would refuse what is with it."""
    return {name: value for name, value in (metrics or {}).items() if math.isfinite(value)}


def _report(desk: Desk, progress: Progress) -> None:
    values = dataclasses.asdict(progress)
    metrics, message = _numbers(values.pop("metrics")), values.pop("message")
    desk.tell("progress", progress=values)
    if metrics:
        desk.tell("metrics", step=progress.step, values=metrics)
    if message:
        desk.event("training", message, type="metrics" if metrics else "message", **metrics)


def _finish(desk: Desk, ending: Finished) -> None:
    model = desk.folder / "model"
    seal(model)
    seal(desk.folder / "results")
    files = sorted(p.relative_to(desk.folder).as_posix() for p in (desk.folder / "results").iterdir())
    desk.tell(
        "done",
        model="model",
        metrics=_numbers(ending.metrics),
        steps=ending.steps,
        resolved=ending.resolved,
        files=[name for name in files if not name.endswith("manifest.json")],
    )

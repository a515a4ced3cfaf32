"""What makes a run the same run: all that must not differ when it goes on from a checkpoint."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from domain.errors import EngineError
from domain.specs import Multimodal
from engine.data.splits import Splits
from engine.models.multimodal import Multimodal as Network
from engine.models.vision_language import VisionLanguage

#: These say how long a run goes on and what it tells; its steps are the same steps.
FREE = frozenset(
    {"n_epochs", "logging_steps", "eval_steps", "save_steps", "save_total_limit", "early_stopping_patience"}
)

Run = Mapping[str, Any]


def describe(spec: Multimodal, splits: Splits, model: Network, seed: int, data: Mapping[str, str]) -> Run:
    """Path in the request -> what a run that goes on must have there as well.

    `data` are the sha256 of the files whose rows are trained on and chosen by.
    """
    parts = {"task", "family", "hold_out", "fusion", "loss", "hyperparameters"}
    given = spec.model_dump(mode="json", by_alias=True, include=parts)
    hyper = {k: v for k, v in given.pop("hyperparameters").items() if k not in FREE}
    towers = {
        # Two names of one encoder are one encoder; other weights under its name are another.
        name: tower.model_dump(mode="json", exclude={"encoder"})
        | {"encoder" if tower.encoder else "statistics": model.encoder(name).fingerprint}
        if name in model.names
        # A language model reads it as text.
        else {"encoder": None}
        for name, tower in spec.towers.items()
    }
    told = {
        **given,
        "hyperparameters": hyper,
        **_language(spec, model),
        "towers": sorted(towers),
        **{f"towers.{name}": tower for name, tower in towers.items()},
        "schema": {name: str(column.type) for name, column in splits.schema.columns.items()},
    }
    rows = {"rows": len(splits.train), "skipped": splits.skipped, "masked": splits.masked}
    targets = hashlib.sha256(splits.targets[: len(splits.train)].numpy().tobytes()).hexdigest()
    return {
        "seed": seed,
        **{f"multimodal.{path}": value for name, part in told.items() for path, value in _fields(name, part)},
        **data,
        **{f"training_file.{name}": number for name, number in rows.items()},
        "training_file.labels": targets,
    }


def _language(spec: Multimodal, model: Network) -> dict[str, Any]:
    if spec.language_model is None or not isinstance(model, VisionLanguage):
        return {}
    said = spec.language_model.model_dump(mode="json", exclude={"model"})
    return {"language_model": said | {"fingerprint": model.language.fingerprint}}


def _fields(name: str, part: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(part, dict):
        yield name, part
        return
    for field, value in part.items():
        yield f"{name}.{field}", value


def refuse_another(before: Run, now: Run) -> None:
    """Raises `checkpoint_mismatch` with what differs. What only one of the two knows is a younger Plait's word, but for the
    model that a run started from: a checkpoint lacks what was taken over and is not trained."""
    if before and before.get("model") != now.get("model"):
        message = (
            "the checkpoint is of a run that started from another model, or one of the two started from none; "
            "give as the job's model what the checkpoint's job had"
        )
        raise EngineError("checkpoint_mismatch", message, param="model")
    differ = sorted(path for path in before if path in now and before[path] != now[path])
    if differ:
        allowed = ", ".join(sorted(FREE))
        message = (
            f"the checkpoint is of another run: {', '.join(differ)} differ; "
            f"what may differ when a run goes on: {allowed}, and the test file"
        )
        raise EngineError("checkpoint_mismatch", message, param=differ[0])

"""A prediction, on the infer lane. Its child stays, and so do the models that it has loaded."""

from base64 import b64decode
from pathlib import Path
from typing import Any

import torch

from domain.predictions import WRITING
from engine.data.decoders.pool import Decoders
from engine.hub.mirror import resolve
from engine.infer import Answer, Predictor, Problem, Writer, load
from engine.infer.shelf import Shelf
from engine.train.words import StopAsked
from kernels import dispatch
from worker.child import Desk

#: Some hundred megabytes each, encoders included.
MODELS_HELD = 4

_shelf: Shelf[Predictor | Writer] = Shelf(MODELS_HELD)
#: It stays as long as the child.
_decoders: list[Decoders] = []


def predict(desk: Desk) -> None:
    """Ends in `done` with every row's answer or error, in `stopped`, or in `failed` for the model's sake."""
    if not torch.cuda.is_available():
        # Small batches gain nothing from sharing cores, and the machine's other workers need them.
        torch.set_num_threads(1)
    dispatch.use(desk.place["kernels"])
    spec = desk.spec
    if _has_media(spec):
        # While the model is loaded, so that the first prediction does not wait for both.
        _decoders_of(desk.place).warm()
    predictor = _shelf.get(desk.model["folder"], lambda: _load(desk))
    try:
        answer = predictor.run(
            [_row(row, desk.blobs) for row in spec["inputs"]],
            on_bad_input=spec.get("on_bad_input", "error"),
            should_stop=desk.should_stop,
            **_options(spec, predictor),
        )
    except StopAsked as asked:
        desk.tell("stopped", why=asked.why)
        return
    desk.tell("done", result=_result(desk, answer))


def _options(spec: dict[str, Any], predictor: Predictor | Writer) -> dict[str, Any]:
    """The door refused what the model's family does not take."""
    told = WRITING if isinstance(predictor, Writer) else ("top_k", "return_embeddings")
    return {name: spec[name] for name in told if name in spec}


def _load(desk: Desk) -> Predictor | Writer:
    place = desk.place
    predictor = load(
        Path(desk.model["folder"]),
        encoders=lambda name: resolve(
            name,
            mirror=Path(place["encoders"]),
            allow_hub=place["allow_hub"],
            local_roots=[Path(p) for p in place["local_roots"]],
        ),
        media=_decoders_of(place).media,
    )
    if predictor.reads_media:
        # A later prediction may have media though this one has none.
        _decoders_of(place).warm()
    return predictor


def _decoders_of(place: dict[str, Any]) -> Decoders:
    """Those of the child, the same for all models. They die with it."""
    if not _decoders:
        _decoders.append(Decoders(seconds=place["decode_timeout_s"]))
    return _decoders[0]


def _has_media(spec: dict[str, Any]) -> bool:
    return any(isinstance(cell, dict) for row in spec["inputs"] for cell in row["values"].values())


def _row(row: dict[str, Any], blobs: dict[str, str]) -> dict[str, Any]:
    """What was found wrong at the door stands in the cell's place."""
    found = {
        name: Problem(said["code"], said["message"], name)
        for name, said in (row.get("problems") or {}).items()
    }
    return {name: _value(cell, blobs) for name, cell in row["values"].items()} | found


def _value(cell: Any, blobs: dict[str, str]) -> Any:
    """Media in the blob store are read when their micro-batch is."""
    if not isinstance(cell, dict):
        return cell
    if "several" in cell:
        return [_value(part, blobs) for part in cell["several"]]
    return Path(blobs[cell["blob"]]) if "blob" in cell else b64decode(cell["inline"])


def _result(desk: Desk, answer: Answer) -> dict[str, Any]:
    rows = zip(desk.spec["inputs"], answer.predictions, strict=True)
    return {
        "model": desk.model["id"],
        "predictions": [{"id": row["id"], **prediction.as_dict()} for row, prediction in rows],
        "usage": {
            "decode_ms": answer.decode_ms,
            "gpu_ms": answer.gpu_ms,
            "batch_size": len(answer.predictions),
        },
    }

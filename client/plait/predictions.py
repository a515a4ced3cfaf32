"""Predictions: asking a fine-tuned model about rows of text, pictures and sounds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from plait import paging, waiting
from plait.inputs import MOST_ROWS, Value, pack
from plait.transport import Transport
from plait.waiting import FINAL

_PATH = "/predictions"
OnBadInput = Literal["error", "mask"]


class Ranked(NamedTuple):
    label: str
    score: float


class RowError(NamedTuple):
    """Why a row has no answer; `param` is the column."""

    code: str
    message: str
    param: str | None


@dataclass(frozen=True, slots=True)
class Modalities:
    """Which columns an answer rests on."""

    used: list[str]
    missing: list[str]
    failed: list[str]
    #: How much each used column counted; they sum to 1.
    weights: dict[str, float] | None
    #: gates (the fusion's own) or leave_one_out (how far the answer moves without the column)
    weights_by: str | None

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Modalities":
        return cls(
            used=raw.get("used") or [],
            missing=raw.get("missing") or [],
            failed=raw.get("failed") or [],
            weights=raw.get("weights"),
            weights_by=raw.get("weights_by"),
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one row. Only a row without an `error` has a label or a value."""

    id: str
    label: str | None
    #: Of a multilabel model: all labels with a probability of at least one half.
    labels: list[str] | None
    #: Of a regression.
    value: float | None
    #: The probability of `label`.
    score: float | None
    #: The likeliest labels, best first, `top_k` of them.
    top: list[Ranked]
    probabilities: dict[str, float] | None
    #: The fused vector before the head, if it was asked for.
    embedding: list[float] | None
    #: Of a contrastive model: each used column's own vector, if they were asked for.
    embeddings: dict[str, list[float]] | None
    #: Of a model that writes, and why it ended: stop or length.
    text: str | None
    finish_reason: str | None
    modalities: Modalities
    warnings: list[str]
    error: RowError | None
    #: The server's whole answer.
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Prediction":
        error = raw.get("error")
        return cls(
            id=str(raw.get("id") or ""),
            label=raw.get("label"),
            labels=raw.get("labels"),
            value=raw.get("value"),
            score=raw.get("score"),
            top=[Ranked(one["label"], one["score"]) for one in raw.get("top") or ()],
            probabilities=raw.get("probabilities"),
            embedding=raw.get("embedding"),
            embeddings=raw.get("embeddings"),
            text=raw.get("text"),
            finish_reason=raw.get("finish_reason"),
            modalities=Modalities.of(raw.get("modalities") or {}),
            warnings=raw.get("warnings") or [],
            error=RowError(error["code"], error["message"], error.get("param")) if error else None,
            raw=raw,
        )


class Usage(NamedTuple):
    """Where the time went, in ms, and how many rows were computed together."""

    queue_ms: float | None
    decode_ms: float | None
    gpu_ms: float | None
    batch_size: int | None


@dataclass(frozen=True, slots=True)
class PredictionRun:
    """One request's predictions, in the order of its inputs, once it has succeeded."""

    id: str
    #: queued, running, succeeded, failed or cancelled
    status: str
    model: str
    created_at: int | None
    finished_at: int | None
    #: {code, message, param} of a run that failed as a whole.
    error: dict[str, Any] | None
    predictions: list[Prediction]
    usage: Usage | None
    #: The server's whole answer.
    raw: dict[str, Any] = field(repr=False)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "PredictionRun":
        usage = raw.get("usage")
        return cls(
            id=raw["id"],
            status=raw["status"],
            model=raw.get("model") or "",
            created_at=raw.get("created_at"),
            finished_at=raw.get("finished_at"),
            error=raw.get("error"),
            predictions=[Prediction.of(one) for one in raw.get("predictions") or ()],
            usage=Usage(*(usage.get(name) for name in Usage._fields)) if usage else None,
            raw=raw,
        )


class Predictions:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        model: str,
        inputs: Sequence[Mapping[str, Value]],
        *,
        top_k: int = 1,
        return_embeddings: bool = False,
        on_bad_input: OnBadInput = "error",
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        wait: bool | float = True,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> PredictionRun:
        """Predicts 1 to 256 rows, each a mapping of columns to values (and `id`, if you like).

        A value is text, a `pathlib.Path` to a picture or sound, its bytes, `{"file_id": …}` of an uploaded file,
        a list of such for several files in one cell, or None; any of the model's columns may be left out. A bad row has its own `error` and harms no other;
        with `on_bad_input="mask"` it is predicted from its other columns. `max_tokens`, `temperature`, `seed` and `stop` are
        for a model that writes. Waits until the run is final, or `wait`
        seconds (False: not at all); see `get` and `wait` for a run that was not.
        """
        if not 1 <= len(inputs) <= MOST_ROWS:
            raise ValueError(f"inputs: 1 to {MOST_ROWS} rows go into one request, not {len(inputs)}")
        seconds = waiting.seconds_of(wait)
        body: dict[str, Any] = {
            "model": model,
            "top_k": top_k,
            "return_embeddings": return_embeddings,
            "on_bad_input": on_bad_input,
        }
        writing = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed, "stop": stop}
        body |= {name: value for name, value in writing.items() if value is not None}
        if metadata:
            body["metadata"] = dict(metadata)
        raw = self._post(body, inputs, idempotency_key, waiting.prefer(seconds))
        return self._finished(raw, seconds)

    def _post(
        self,
        body: dict[str, Any],
        inputs: Sequence[Mapping[str, Value]],
        key: str | None,
        headers: dict[str, str],
    ) -> dict[str, Any]:
        with pack(inputs) as packed:
            body["inputs"] = packed.rows
            if not packed.parts:
                return self._transport.post(_PATH, body, idempotency_key=key, headers=headers)
            form = {"json": json.dumps(body)}
            return self._transport.post_form(_PATH, form, packed.parts, idempotency_key=key, headers=headers)

    def get(self, run_id: str) -> PredictionRun:
        return PredictionRun.of(self._transport.get(paging.one(_PATH, run_id)))

    def wait(self, run_id: str, wait: bool | float = True) -> PredictionRun:
        """The run once it is final, or as it stands after `wait` seconds. Waits through a restart of the server."""
        path = paging.one(_PATH, run_id)
        raw = waiting.patiently(lambda: self._transport.get(path), self._transport.wait)
        return self._finished(raw, waiting.seconds_of(wait))

    def cancel(self, run_id: str) -> PredictionRun:
        return PredictionRun.of(self._transport.post(f"{paging.one(_PATH, run_id)}/cancel"))

    def list(self, *, after: str | None = None, limit: int | None = None) -> Iterator[PredictionRun]:
        """Newest first, at most `limit` in all; pages are fetched as they are needed."""
        return map(PredictionRun.of, paging.walk(self._transport, _PATH, after=after, limit=limit))

    def _finished(self, raw: dict[str, Any], seconds: float) -> PredictionRun:
        path = paging.one(_PATH, raw["id"])
        return PredictionRun.of(waiting.until_final(self._transport, path, raw, seconds))

"""What a prediction says of one row. Knows no network."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

WeightsBy = Literal["gates", "leave_one_out"]

OnBadInput = Literal["error", "mask"]


@dataclass(frozen=True)
class Problem:
    """Why a row or a cell could not be used; as a cell's value it says that somebody before us found out."""

    code: str
    message: str
    #: The column.
    param: str | None = None

    def __post_init__(self) -> None:
        # Decoders quote the bytes that they choke on, and a database takes neither NUL nor half a character.
        clean = "".join(c if c.isprintable() else " " for c in self.message)
        object.__setattr__(self, "message", clean)


@dataclass(frozen=True)
class Scored:
    label: str
    score: float


@dataclass(frozen=True)
class Modalities:
    """The model's columns, sorted out; `weights` says how much the answer rests on each used one (sum 1)."""

    used: list[str]
    missing: list[str]
    failed: list[str]
    weights: dict[str, float] | None = None
    weights_by: WeightsBy | None = None


@dataclass(frozen=True)
class Prediction:
    """One row's answer, or its `error`. What the model's task does not have is None.

    label, score    classification: the likeliest class and its probability
    labels          multilabel: the classes of probability .5 and more, at most `readout.MOST_TOLD`
    value           regression, in the unit of the training data
    top             the likeliest classes, at most `top_k`
    probabilities   of every class; None where there are more than `readout.MOST_TOLD`
    embedding       the fused vector before the head, if it was asked for; of a contrastive model always: the mean of
                    the columns' vectors, of length 1
    embeddings      contrastive: of each used column its own vector, of length 1, if they were asked for
    text            generation: what the model wrote
    finish_reason   generation: stop, where the answer ended by itself or before a text it was to stop at; length, where it
                    was cut
    """

    modalities: Modalities
    label: str | None = None
    labels: list[str] | None = None
    value: float | None = None
    score: float | None = None
    top: tuple[Scored, ...] = ()
    probabilities: dict[str, float] | None = None
    embedding: list[float] | None = None
    embeddings: dict[str, list[float]] | None = None
    text: str | None = None
    finish_reason: Literal["stop", "length"] | None = None
    warnings: tuple[str, ...] = ()
    error: Problem | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON takes them."""
        return asdict(self) | {"top": [asdict(s) for s in self.top], "warnings": list(self.warnings)}


@dataclass(frozen=True)
class Answer:
    """`decode_ms` went into reading the inputs, `gpu_ms` into the networks (wherever they run)."""

    predictions: list[Prediction]
    decode_ms: float
    gpu_ms: float

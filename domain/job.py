"""The job's state machine. The table MOVES is all of it; `db.jobs.move` is the only code that carries it out."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    FINE_TUNE = "fine_tune"
    #: A file looked through as a training file would be, without a training.
    CHECK = "check"
    PREDICT = "predict"


#: How the id of a job begins: its kind can be told from it.
ID_PREFIX: Mapping[Kind, str] = {Kind.FINE_TUNE: "ftjob-", Kind.CHECK: "check_", Kind.PREDICT: "pred_"}


class Stage(StrEnum):
    """A fine-tune is first checked on the cpu lane, then run on its GPU lane; other kinds only run."""

    VALIDATE = "validate"
    RUN = "run"


class Lane(StrEnum):
    CPU = "cpu"
    TRAIN = "train"
    INFER = "infer"
    BATCH = "batch"


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Want(StrEnum):
    """What the user asked of a running job; its keeper reads it at each renewal of the lease."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
#: The others. An index finds what is one of these, and not what is none of those.
UNFINISHED = frozenset(State) - FINAL


class Move(NamedTuple):
    sources: frozenset[State]
    target: State
    #: The move is a worker's and carries its fence: one thought dead cannot finish another's job.
    fenced: bool


def _by_worker(target: State) -> Move:
    return Move(frozenset({State.RUNNING}), target, fenced=True)


MOVES: Mapping[str, Move] = {
    "job.claimed": Move(frozenset({State.QUEUED}), State.RUNNING, fenced=False),
    "job.validated": _by_worker(State.QUEUED),
    "job.succeeded": _by_worker(State.SUCCEEDED),
    "job.failed": _by_worker(State.FAILED),
    "job.retried": _by_worker(State.QUEUED),
    "job.drained": _by_worker(State.QUEUED),
    "job.stopped": _by_worker(State.CANCELLED),
    "job.reaped": _by_worker(State.QUEUED),
    "job.cancelled": Move(frozenset({State.QUEUED, State.PAUSED}), State.CANCELLED, fenced=False),
}


def public_status(state: State, stage: Stage) -> str:
    """The status a client sees: OpenAI's words."""
    if stage is Stage.VALIDATE and state in (State.QUEUED, State.RUNNING):
        return "validating_files"
    return str(state)


PUBLIC_STATUSES = ("validating_files", *State)


def behind(status: str) -> list[tuple[State, Stage]]:
    """The states and stages that a client sees as `status`; none for a word that is no status."""
    return [(state, stage) for state in State for stage in Stage if public_status(state, stage) == status]

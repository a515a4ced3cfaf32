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


#: What waits for a claim, or for its user's word; both hold files, and both count against a tenant's limit.
WAITING = frozenset({State.QUEUED, State.PAUSED})
FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
#: The others. An index finds what is one of these, and not what is none of those.
UNFINISHED = frozenset(State) - FINAL


class Move(NamedTuple):
    """Out of RUNNING a move is its worker's and carries the fence, so that one thought dead cannot finish
    another's job; out of any other state it is the user's or the claim's and carries none."""

    sources: frozenset[State]
    target: State


def _from(*sources: State, to: State) -> Move:
    return Move(frozenset(sources), to)


MOVES: Mapping[str, Move] = {
    "job.claimed": _from(State.QUEUED, to=State.RUNNING),
    "job.validated": _from(State.RUNNING, to=State.QUEUED),
    "job.succeeded": _from(State.RUNNING, to=State.SUCCEEDED),
    "job.failed": _from(State.RUNNING, to=State.FAILED),
    "job.retried": _from(State.RUNNING, to=State.QUEUED),
    "job.drained": _from(State.RUNNING, to=State.QUEUED),
    "job.stopped": _from(State.RUNNING, to=State.CANCELLED),
    "job.reaped": _from(State.RUNNING, to=State.QUEUED),
    "job.paused": _from(State.QUEUED, State.RUNNING, to=State.PAUSED),
    "job.resumed": _from(State.PAUSED, to=State.QUEUED),
    "job.cancelled": _from(State.QUEUED, State.PAUSED, to=State.CANCELLED),
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

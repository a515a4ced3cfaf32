"""The process that does the work of one job after another: `python -m worker.child FD KEEPER_PID`. Knows no database.

Four things end it: the keeper's death (PDEATHSIG; it follows the thread that started us, and the keeper's
threads last), the lease of the job in hand if it is not prolonged (a timer whose signal needs no interpreter),
the end of the socket, and the keeper's kill. Between two jobs there is no lease and so no timer. A child that
is not told to stay ends after its first job.
"""

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import lifeline
import settings
from domain.errors import EngineError
from domain.job import Kind, Stage
from worker import gpus
from worker.fetching import fetch
from worker.wire import FILES_ASKED, Lines, Mouth

#: Module and function of `worker.handlers`.
HANDLERS: Mapping[tuple[Kind, Stage], tuple[str, str]] = {
    (Kind.FINE_TUNE, Stage.VALIDATE): ("validate", "validate"),
    (Kind.FINE_TUNE, Stage.RUN): ("fine_tune", "fine_tune"),
    (Kind.CHECK, Stage.RUN): ("check", "check"),
    (Kind.PREDICT, Stage.RUN): ("predict", "predict"),
}


class Desk:
    """What a handler works with: the assignment, a folder, and the ways to speak and to be stopped."""

    def __init__(self, assignment: dict[str, Any], mouth: Mouth) -> None:
        self.job: str = assignment["job"]
        self.spec: dict[str, Any] = assignment["spec"]
        self.resolved: dict[str, Any] = assignment.get("resolved") or {}
        self.files: dict[str, dict[str, Any]] = assignment["files"]
        self.folder = Path(assignment["folder"])
        self.store = Path(assignment["store"])
        #: The job's own, newest first; and the one of another job that it starts from.
        self.checkpoints = [Path(folder) for folder in assignment.get("checkpoints", [])]
        self.start = Path(assignment["start"]) if assignment.get("start") else None
        self.place: dict[str, Any] = assignment["place"]
        self.storage: dict[str, Any] = assignment["storage"]
        #: Id and folder of a prediction's model, or of that which a training starts from; and where a prediction's blobs lie.
        self.model: dict[str, str] = assignment.get("model") or {}
        self.blobs: dict[str, str] = {}
        self._media: dict[str, str] = assignment.get("blobs") or {}
        self.stays = bool(assignment["stay"])
        self._mouth = mouth
        self._stop: str | None = None
        self._published = threading.Condition()
        self._last_published: str | None = None
        self._asking, self._asked = threading.Lock(), 0
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def fetch(self, held: ExitStack) -> None:
        """Brings the files and media here, for as long as `held` is open; from now on their paths are known."""
        for field, file in self.files.items():
            file["path"] = fetch(held, self.storage, file["blob"], file["sha256"], param=field)
        for key, sha256 in self._media.items():
            try:
                self.blobs[key] = fetch(held, self.storage, key, sha256, param="inputs")
            except EngineError as error:
                if error.retryable:
                    raise
                # Only the row that names them has an error, and its neighbours are answered.
                self.blobs[key] = str(self.folder / "gone")

    def tell(self, say: str, **words: Any) -> None:
        if say == "failed":
            # A job's log is read when it failed: there it stands whatever else was printed.
            sys.stderr.write(f"{words['error']['code']}: {words['error']['message']}\n")
        self._mouth.tell(say=say, **words)

    def event(
        self, name: str, message: str, *, level: str = "info", type: str = "message", **data: Any
    ) -> None:
        self.tell("event", name=name, message=message, level=level, type=type, data=data)

    def publish_checkpoint(self, ref: str, step: int, metrics: dict[str, float]) -> None:
        """Tells of a complete checkpoint, and returns once the job's row names it.

        The keeper removes those that are too many by then; one that is frozen or dead removes none.
        """
        self.tell("checkpoint", ref=ref, step=step, metrics=metrics)
        with self._published:
            self._published.wait_for(lambda: self._last_published == ref)

    def note_published(self, ref: str) -> None:
        with self._published:
            self._last_published = ref
            self._published.notify_all()

    def find_files(self, ids: Sequence[str]) -> Mapping[str, dict[str, Any]]:
        """Where uploaded files of the job's tenant are: `blob`, `sha256` and `bytes` by id, of those that there are.

        Waits for the keeper; that ends with the answer, the lease, or a stop that took too long.
        """
        assert len(ids) <= FILES_ASKED
        with self._asking:
            self._asked += 1
            self.tell("files", ask=self._asked, ids=list(ids))
            while (answer := self._answers.get())["ask"] != self._asked:
                pass
            return dict(answer["files"])

    def note_answer(self, answer: dict[str, Any]) -> None:
        self._answers.put(answer)

    def ask_stop(self, why: str) -> None:
        self._stop = self._stop or why

    def should_stop(self) -> str | None:
        """Why the work is to stop (`cancel`, `pause`, `drain`); asked at least once a micro-batch."""
        return self._stop


class Ear:
    """Hears the keeper in a thread of its own: a lease or a stop arrives while the work goes on."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._mouth = sock, Mouth(sock)
        self._desk: Desk | None = None
        self.assigned: SimpleQueue[Desk] = SimpleQueue()

    def listen(self) -> None:
        lines = Lines()
        try:
            while data := self._sock.recv(1 << 20):
                for message in lines.feed(data):
                    self._obey(message)
        except ConnectionError:
            pass  # a reset is an end too
        os.killpg(0, signal.SIGKILL)

    def _obey(self, message: dict[str, Any]) -> None:
        if "lease" in message:
            _arm(message["lease"])
        if "job" in message:
            # What was still said to the job before is heard by nobody.
            self._desk = Desk(message, self._mouth)
            self._desk.tell("heard")
            self.assigned.put(self._desk)
        elif self._desk is not None and "published" in message:
            self._desk.note_published(message["published"])
        elif self._desk is not None and "ask" in message:
            self._desk.note_answer(message)
        elif self._desk is not None and "stop" in message:
            self._desk.ask_stop(message["stop"])


def _arm(until: float | None) -> None:
    """SIGALRM's default action ends the process even while a C call holds the interpreter."""
    left = until - time.monotonic() if until is not None else 0.0
    if until is not None and left <= 0:
        # Frozen while it started, say: the job is another's, and nothing of it is begun.
        os.kill(os.getpid(), signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, left)


def main(fd: int, keeper: int) -> None:
    lifeline.die_with_parent(keeper)
    # The keeper decides: a signal to the whole group, or Ctrl-C, must not tear a step.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ear = Ear(socket.socket(fileno=fd))
    threading.Thread(target=ear.listen, name="keeper", daemon=True).start()
    while True:
        desk = ear.assigned.get()
        _work(desk)
        if not desk.stays:
            return


#: Who has a GPU alone. The child that predicts keeps its models loaded between two jobs: if it had one alone, no
#: training would ever get it.
_ALONE = (Kind.FINE_TUNE, Stage.RUN)


def _work(desk: Desk) -> None:
    task = Kind(desk.place["kind"]), Stage(desk.place["stage"])
    _call_it(f"plait {task[0]}")
    try:
        if task == _ALONE and not _takes_gpu(desk):
            desk.tell("stopped", why=desk.should_stop())
            return
        with ExitStack() as held:
            desk.fetch(held)
            _handler(*task)(desk)
    except EngineError as error:
        # For the job's log: where it happened is what a developer asks next.
        traceback.print_exc()
        desk.tell(
            "failed",
            error={"code": error.code, "message": error.message, "param": error.param},
            retryable=error.retryable,
        )


def _call_it(name: str) -> None:
    """What `ps -o comm` and `top` show from now on: at most 15 letters, on Linux. Before its first job it is a python."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _takes_gpu(desk: Desk) -> bool:
    """Locks a GPU, where there are any, before torch is loaded; False when asked to stop before one was free."""
    uuids = gpus.visible(gpus.installed(), settings.visible_gpus())
    if not uuids:
        return True
    message = "Other trainings have the GPUs of this worker; this one begins as soon as one of them ends."
    uuid = gpus.take_one(
        uuids,
        Path(desk.place["gpu_locks"]),
        waits=lambda: desk.event("training.waits_for_gpu", message),
        should_stop=desk.should_stop,
    )
    if uuid is not None:
        settings.see_one_gpu(uuid)
    return uuid is not None


def _handler(kind: Kind, stage: Stage) -> Callable[[Desk], None]:
    """Imported only when needed: a check never loads torch."""
    module, function = HANDLERS[kind, stage]
    handler: Callable[[Desk], None] = getattr(import_module(f"worker.handlers.{module}"), function)
    return handler


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of libraries must not keep a finished child alive.
    os._exit(0)

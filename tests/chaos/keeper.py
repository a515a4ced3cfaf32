"""A worker as `plait-server worker` starts it, which stops itself at the moment of its outcome where it is asked to.

That moment lasts a millisecond: a signal from outside hardly ever meets it. `python -m chaos.keeper STOPS
fenced|unfenced worker --lane LANE`; STOPS is a folder in which a file asks for one stop.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import manage
from worker.hold import Ending
from worker.outcome import Outcome

#: The name of a request that the next outcome obeys, whichever job it is of; else a request is named as its job.
ANY = "any"


def stop_where_asked(stops: Path) -> None:
    """From now on `Outcome.settle` looks for requests first."""
    settle = Outcome.settle

    def stopping(self: Outcome, ending: Ending) -> object:
        if not ending.fenced and _takes_request(stops, self.job.id, self.job.fence):
            # To this thread: one sent to the process is another thread's, and this one goes on to a transaction.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return settle(self, ending)

    Outcome.settle = stopping  # type: ignore[assignment,method-assign]


def _takes_request(stops: Path, job: str, fence: int) -> bool:
    for name in (job, ANY):
        # One of several workers takes a request: a rename succeeds once.
        with suppress(FileNotFoundError):
            (stops / name).rename(stops / f"{job}.{fence}.{os.getpid()}.stopped")
            return True
    return False


if __name__ == "__main__":
    stop_where_asked(Path(sys.argv[1]))
    if sys.argv[2] == "unfenced":
        from chaos import unfenced

        unfenced.switch_off()
    manage.main(sys.argv[3:])

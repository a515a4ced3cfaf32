"""Before a worker's first claim its kernels are compiled, so that no job waits for it. Loads no torch.

`python -m worker.warming PARENT_PID` is the process that does it: CUDA and its memory end with it.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

#: An empty cache takes about a minute.
LONGEST_S = 600.0
#: Between two looks at whether the worker was told to end.
_AGAIN_S = 0.2


def warm_up(draining: threading.Event, command: Sequence[str] | None = None) -> None:
    """Returns when the kernels are compiled, when that failed, or when the worker is to end.

    A failure is told in the log and no more: jobs then compile what they need, or fail with words of their own.
    """
    started = time.monotonic()
    log.info("compiling kernels before the first claim")
    process = subprocess.Popen(
        command or [sys.executable, "-m", "worker.warming", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        cwd=Path(__file__).parent.parent,
    )
    while process.poll() is None:
        if draining.wait(_AGAIN_S) or time.monotonic() > started + LONGEST_S:
            process.kill()
            process.wait()
    took = time.monotonic() - started
    if process.returncode == 0:
        log.info("kernels are ready after %.0f s", took)
    elif not draining.is_set():
        log.warning(
            "kernels could not be compiled beforehand (exit code %d after %.0f s): jobs will compile what they need, "
            "or say what is wrong; PLAIT_KERNELS=torch does without kernels",
            process.returncode,
            took,
        )


def _main(parent: int) -> None:
    import lifeline

    lifeline.die_with_parent(parent)
    from kernels.warm import warm

    for op, cases in warm():
        sys.stdout.write(f"kernels of {op}: {cases} cases ready\n")


if __name__ == "__main__":
    _main(int(sys.argv[1]))

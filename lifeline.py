"""Ties a process's life to its parent's, so that nothing outlives the supervisor or keeper that started it."""

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, sig: signal.Signals = signal.SIGKILL) -> None:
    """This process gets `sig` when `parent` dies; told first of all, and safe if it is dead already.

    On Linux the kernel does it (it watches the parent's thread that started us). Elsewhere a thread
    asks once a second whether the parent is still ours.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(sig))
    else:
        threading.Thread(target=_watch, args=(parent, sig), name="lifeline", daemon=True).start()
    if os.getppid() != parent:
        os.kill(os.getpid(), sig)


def _watch(parent: int, sig: signal.Signals) -> None:
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(1.0)
    os.kill(os.getpid(), sig)

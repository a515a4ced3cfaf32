"""Which of an op's implementations runs. Knows neither the ops nor torch: callers say what they hold."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cache

log = logging.getLogger(__name__)


class Backend(StrEnum):
    AUTO = "auto"
    TRITON = "triton"
    TORCH = "torch"


class KernelMissing(RuntimeError):
    """Triton was asked for by name, and the op has no Triton kernel."""


#: What each op of this process has run on.
_ran: dict[str, set[Backend]] = {}

# One for the process and not a context variable: the backward runs in autograd's own threads.
_wanted = Backend.AUTO


def use(backend: str) -> None:
    """From now on every op of this process runs on `backend`: `auto`, `triton` or `torch`."""
    global _wanted
    _wanted = _parse(backend)


@contextmanager
def using(backend: str) -> Iterator[None]:
    """`use(backend)` until the block ends."""
    before = _wanted
    use(backend)
    try:
        yield
    finally:
        use(before)


def choose(op: str, available: Collection[Backend], *, device: str, float64: bool) -> Backend:
    """The backend for one call of `op`, which has the implementations `available`.

    CPU tensors and float64 always take the reference, whatever is wanted; only where Triton's interpreter is
    switched on (`TRITON_INTERPRET=1`) and Triton is wanted by name does it take those on the CPU. Raises
    `KernelMissing` when Triton is wanted by name and `op` has no Triton kernel: whoever names it wants to know.
    """
    if _wanted is Backend.TRITON and Backend.TRITON not in available:
        raise KernelMissing(f"{op} has no Triton kernel; use the backend 'auto' or 'torch'")
    if _wanted is Backend.TORCH:
        return Backend.TORCH
    if device == "cpu" or float64:
        if _wanted is Backend.TRITON and not float64 and _is_interpreted():
            return Backend.TRITON
        if _wanted is Backend.TRITON:
            say_once(op, "float64 and tensors on the CPU always run there")
        return Backend.TORCH
    if Backend.TRITON not in available:
        say_once(op, "it has no Triton kernel")
        return Backend.TORCH
    return Backend.TRITON


def note(op: str, backend: Backend) -> None:
    """`op` runs on `backend` now."""
    _ran.setdefault(op, set()).add(backend)


def forget() -> None:
    """What `ran` tells is of the time from here on."""
    _ran.clear()


def ran() -> dict[str, list[str]]:
    """The backends on which each op has run in this process since `forget`; ops that did not run are not in it."""
    return {op: sorted(backends) for op, backends in sorted(_ran.items())}


def _parse(backend: str) -> Backend:
    if backend not in list(Backend):
        raise ValueError(f"unknown kernel backend {backend!r}; it is one of {', '.join(Backend)}")
    return Backend(backend)


def _is_interpreted() -> bool:
    # Asked only where Triton is wanted by name and there: otherwise it is not loaded.
    from triton import knobs

    return bool(knobs.runtime.interpret)


@cache
def say_once(op: str, reason: str) -> None:
    """In the log, once per process: that `op` runs on the reference, and why."""
    log.warning("%s runs on the torch reference: %s", op, reason)

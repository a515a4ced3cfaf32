"""How an op becomes known to torch: its schemas and shapes, and the choice of implementation at each call."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from kernels import dispatch

_library = torch.library.Library("plait", "FRAGMENT")

#: The modules that hold an op's `forward` and `backward`, by name: Triton is loaded when it is first chosen.
Implementations = Mapping[dispatch.Backend, str]


@dataclass(frozen=True)
class Half:
    """The forward or the backward of an op."""

    #: `(Tensor x, ...) -> Tensor`, as `torch.library` reads it.
    schema: str
    #: Of fake tensors: empty results of the right shapes and dtypes.
    shapes: Callable[..., Any]
    #: The number of the argument whose device and dtype decide which implementation runs.
    anchor: int


def register(
    name: str, implementations: Implementations, *, forward: Half, backward: Half
) -> tuple[Any, Any]:
    """`torch.ops.plait.<name>` and `..._backward`, which run `forward` and `backward` of an implementation.

    The choice is made inside of them, at run time: a compiled graph holds the op and not one of its
    implementations. Autocast ends there: an implementation chooses its own precision. What a forward keeps
    for its backward means the same in all implementations, so that the two halves may run on different ones.

    A module may hold `refuses_forward(*arguments) -> str | None` and `refuses_backward`: why it cannot take a call,
    judged by shapes and dtypes alone. Such a call runs on the reference, and the log says so once.
    """
    return (
        _registered(name, name, implementations, "forward", forward),
        _registered(f"{name}_backward", name, implementations, "backward", backward),
    )


def like_those_needed(sources: Sequence[Tensor | None], needs: Sequence[bool]) -> list[Tensor]:
    """Empty gradients of the sources that are there and need one: what a backward's `shapes` returns."""
    return [
        source.new_empty(source.shape)
        for source, needed in zip(sources, needs, strict=True)
        if needed and source is not None
    ]


def _registered(name: str, op: str, implementations: Implementations, function: str, half: Half) -> Any:
    def run(*arguments: Any) -> Any:
        device = arguments[half.anchor].device
        # Triton launches on the current GPU, whichever the tensors are on.
        with _without_autocast(device.type), _current(device):
            return getattr(_chosen(op, implementations, arguments, function, half), function)(*arguments)

    _library.define(f"{name}{half.schema}", tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"plait::{name}", half.shapes, lib=_library)
    return getattr(torch.ops.plait, name).default


def _chosen(
    op: str, implementations: Implementations, arguments: Sequence[Any], function: str, half: Half
) -> Any:
    anchor = arguments[half.anchor]
    is_double = anchor.dtype == torch.float64
    backend = dispatch.choose(op, _present(implementations), device=anchor.device.type, float64=is_double)
    module = _loaded(implementations[backend])
    refuses = getattr(module, f"refuses_{function}", None)
    reason = refuses and refuses(*arguments)
    if reason:
        dispatch.say_once(op, reason)
        backend, module = dispatch.Backend.TORCH, _loaded(implementations[dispatch.Backend.TORCH])
    dispatch.note(op, backend)
    return module


def _present(implementations: Implementations) -> Implementations:
    return (
        implementations
        if _triton_is_here()
        else {dispatch.Backend.TORCH: implementations[dispatch.Backend.TORCH]}
    )


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    # To enter and leave autocast costs a small call a tenth of its time.
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _current(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def _triton_is_here() -> bool:
    return find_spec("triton") is not None


@cache
def _loaded(module: str) -> Any:
    return import_module(module)

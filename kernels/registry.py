"""How an op becomes known to torch: its schemas and shapes, and the choice of implementation at each call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kernels import dispatch

_library = torch.library.Library("plait", "FRAGMENT")


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
    name: str, implementations: Mapping[dispatch.Backend, ModuleType], *, forward: Half, backward: Half
) -> tuple[Any, Any]:
    """`torch.ops.plait.<name>` and `..._backward`, which run `forward` and `backward` of an implementation.

    The choice is made inside of them, at run time: a compiled graph holds the op and not one of its
    implementations. Autocast ends there: an implementation chooses its own precision.
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


def _registered(
    name: str, op: str, implementations: Mapping[dispatch.Backend, ModuleType], function: str, half: Half
) -> Any:
    def run(*arguments: Any) -> Any:
        anchor = arguments[half.anchor]
        device, is_double = anchor.device.type, anchor.dtype == torch.float64
        with torch.autocast(device, enabled=False):
            chosen = dispatch.choose(op, implementations, device=device, float64=is_double)
            return getattr(implementations[chosen], function)(*arguments)

    _library.define(f"{name}{half.schema}", tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"plait::{name}", half.shapes, lib=_library)
    return getattr(torch.ops.plait, name).default

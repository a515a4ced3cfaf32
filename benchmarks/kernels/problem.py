"""What the benchmark of the kernels is told about one problem of one op."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

#: Takes the inputs that `make` returned and gives the op's output.
Provider = Callable[..., Tensor]


@dataclass(frozen=True)
class Problem:
    """One op at one size. All tensors are made on the device by `make`."""

    op: str
    #: `B=256 T=197 D=768 bf16 half padding`.
    label: str
    #: Fresh random inputs, passed on to the providers as they are. Those that training would ask a gradient of
    #: require one; the harness makes several sets, so that the inputs do not sit in the L2 cache.
    make: Callable[[], Sequence[Any]]
    #: The obvious PyTorch code; the harness also compiles it with torch.compile, by default and by max-autotune.
    eager: Provider
    #: The op through its door.
    ours: Provider
    #: The best plain PyTorch that we could think of, if it is another than `eager`; it is compiled, too.
    smart: Provider | None = None
    #: Fewest bytes that must move through memory, and operations to be done, by mode: `fwd`, `full` (fwd + bwd).
    bytes: Mapping[str, float] = field(default_factory=dict)
    flops: Mapping[str, float] = field(default_factory=dict)
    #: As estimated before any measurement (microseconds), by provider: `{"eager": 829, "compile": 329, "ours": 95}`.
    estimate: Mapping[str, float] = field(default_factory=dict)
    #: The mode that the estimates are of.
    estimate_mode: str = "full"
    modes: Sequence[str] = ("fwd", "full")
    #: Providers that cannot run at this size for want of memory: `("eager", "compile", "max-autotune")`.
    too_large_for: Sequence[str] = ()

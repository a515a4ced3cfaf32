"""The activations that ops end with, and the way back through them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

#: Of the values before.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda u: u,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}

#: Of the gradient of the values behind, and of the values before.
GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda du, _: du,
    "relu": lambda du, u: torch.ops.aten.threshold_backward(du, u, 0),
    "gelu": torch.ops.aten.gelu_backward,
    "silu": torch.ops.aten.silu_backward,
}

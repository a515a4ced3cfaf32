"""In how many bits a run calculates. Weights, losses and what fusion adds up are fp32 in every case.

bf16 was tried on CPUs only, and fp16 with a scaler on the CPU: no GPU was at hand when this was written.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from domain.errors import EngineError

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(asked: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """`auto` is bf16 on a CUDA device that has it, else fp32. Raises EngineError for what `device` lacks."""
    on_cuda = device.type == "cuda"
    # Emulated bf16 would be slower than fp32.
    has_bf16 = not on_cuda or torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto":
        return "bf16" if on_cuda and has_bf16 else "fp32"
    if asked == "fp16" and not on_cuda:
        raise _lacking("fp16 needs a CUDA device, and this is a CPU; use bf16, fp32 or auto")
    if asked == "bf16" and not has_bf16:
        raise _lacking("this CUDA device has no bf16; use fp16, fp32 or auto")
    return asked


def _lacking(message: str) -> EngineError:
    return EngineError("invalid_spec", message, param="multimodal.hyperparameters.precision")


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in `precision`; what would suffer from it, torch leaves in fp32."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, _DTYPES[precision])


def scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """fp16 has too few exponents for small gradients: the loss is scaled up before them. Else it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")

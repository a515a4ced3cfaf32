"""What a training holds in a GPU's memory, and what is done when it is too much. Knows no spec."""

import gc

import torch

from domain.errors import EngineError

#: What a user can do about it.
TOO_LITTLE = (
    "freeze more of the encoders or give them lora, set hyperparameters.gradient_checkpointing, shorten the inputs "
    "(max_length, max_seconds, num_frames, image_size), or take smaller encoders or a larger GPU"
)


def halved(rows: int) -> int:
    """The size of a micro-batch where one of `rows` did not fit. Raises EngineError: there is no half of a row."""
    if rows <= 1:
        raise EngineError("out_of_memory", f"a single row does not fit in the GPU's memory; {TOO_LITTLE}")
    return rows // 2


def release() -> None:
    """Gives back what nobody refers to any more: small blocks in the cache's large ones are in the way of others."""
    gc.collect()
    torch.cuda.empty_cache()

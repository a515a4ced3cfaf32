"""The maths of fusion as single ops. Names are resolved on first use, so importing this package loads no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.combine import combine_modalities
    from kernels.contrastive import clip_loss, siglip_loss
    from kernels.lowrank import lowrank_fusion
    from kernels.mmd import mmd_rbf
    from kernels.projection import masked_projection
    from kernels.token_pool import masked_token_pool

__all__ = [
    "clip_loss",
    "combine_modalities",
    "lowrank_fusion",
    "masked_projection",
    "masked_token_pool",
    "mmd_rbf",
    "siglip_loss",
]

# A folder may not carry its op's name: importing it would put the module in the op's place here.
_HOMES = {
    "clip_loss": "kernels.contrastive",
    "combine_modalities": "kernels.combine",
    "lowrank_fusion": "kernels.lowrank",
    "masked_projection": "kernels.projection",
    "masked_token_pool": "kernels.token_pool",
    "mmd_rbf": "kernels.mmd",
    "siglip_loss": "kernels.contrastive",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kernels' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

"""Late fusion: the towers' vectors and what is missing become one vector a row. Knows no encoder."""

from collections.abc import Callable
from functools import partial

from engine.models.fusion.alignment import Aligned, Discrepancy, Discriminator
from engine.models.fusion.base import Fusion, drop_modalities
from engine.models.fusion.combined import Combined
from engine.models.fusion.concat import Concat
from engine.models.fusion.convolution import Convolution
from engine.models.fusion.cross_attention import CrossAttention
from engine.models.fusion.film import Film
from engine.models.fusion.gated import Attention, Gated, Weighing
from engine.models.fusion.tensor import LowRankTensor, WholeTensor

__all__ = ["FUSIONS", "Combined", "Concat", "Fusion", "Weighing", "drop_modalities"]

#: Of the towers' widths, `dim` and the rate of modality dropout; some have an option of their own besides.
FUSIONS: dict[str, Callable[..., Fusion]] = {
    "concat": Concat,
    "mean": partial(Combined, "mean"),
    "sum": partial(Combined, "sum"),
    "max": partial(Combined, "max"),
    "gated": Gated,
    "attention": Attention,
    "cross_attention": CrossAttention,
    "film": Film,
    "tensor": WholeTensor,
    "low_rank_tensor": LowRankTensor,
    "cnn": Convolution,
    "mmd": partial(Aligned, Discrepancy),
    "adversarial": partial(Aligned, Discriminator),
}

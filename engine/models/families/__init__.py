"""Fusions over tokens: every tower's token sequence, and what is missing, become one vector a row. Know no encoder."""

from collections.abc import Callable

from engine.models.families.co_attention import CoAttention
from engine.models.families.cross_modal import CrossModal
from engine.models.families.single_stream import SingleStream
from engine.models.fusion.base import Fusion

__all__ = ["TOKEN_FUSIONS", "CoAttention", "CrossModal", "SingleStream"]

#: By the spec's word. Of the towers' widths, `dim`, the rate of modality dropout and the streams: places of towers that
#: are read as one sequence. Then `layers`, `heads` and `dropout`, if they are said.
TOKEN_FUSIONS: dict[str, Callable[..., Fusion]] = {
    "single_stream": SingleStream,
    "co_attention": CoAttention,
    "cross_modal": CrossModal,
}

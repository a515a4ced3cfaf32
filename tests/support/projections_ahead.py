"""The typical launches of the masked projection as Hopper gets them, for compiling where there is none."""

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from kernels.projection import tiles
from kernels.projection.typical import typical


def on_hopper(device: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Those of large batches: the others get what every card gets."""
    with patch.object(tiles, "hopper", return_value=True):
        for label, run in typical(device):
            if label.startswith("large batch") or label == "frozen towers":
                yield label, run

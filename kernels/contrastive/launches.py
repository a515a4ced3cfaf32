"""What launching the kernels on one tile takes, for both losses."""

from dataclasses import dataclass

from torch import Tensor

from kernels.contrastive.tiles import Tile
from kernels.tuned import tuned

_DEFAULTS = {
    # 64 cells a thread: the sums over a row are then mostly within threads.
    "clip_forward": {"BLOCK_ROWS": 32, "BLOCK_COLUMNS": 256, "num_warps": 4},
    # 16 a thread: with 64 they spill, with 32 they want so many registers that an SM holds one program.
    "clip_backward": {"BLOCK_ROWS": 16, "BLOCK_COLUMNS": 256, "num_warps": 8},
    "siglip": {"BLOCK_ROWS": 16, "BLOCK_COLUMNS": 256, "num_warps": 8},
}


@dataclass(frozen=True)
class Blocks:
    """How one kernel's programs share a tile."""

    options: dict[str, int]

    @property
    def rows(self) -> int:
        return self.options["BLOCK_ROWS"]

    @property
    def columns(self) -> int:
        return self.options["BLOCK_COLUMNS"]

    def grid(self, tile: Tile) -> tuple[int, int]:
        return -(-tile.columns // self.columns), -(-tile.rows // self.rows)

    def count(self, tile: Tile) -> int:
        across, down = self.grid(tile)
        return across * down


def blocks(kernel: str, image: Tensor, texts: Tensor) -> Blocks:
    sizes = {"rows": image.shape[0], "columns": texts.shape[0]}
    return Blocks(tuned(f"contrastive.{kernel}", sizes, _DEFAULTS[kernel]))

"""How the kernels of the masked projection are launched where nobody measured: guesses for H100 and H200, by size.

Every product has two ways: 1 is a kernel of ours, 2 is cuBLAS. Hopper's tensor cores are busy only with tiles of
128 x 256, for which older cards lack the registers. Knows no tensors.
"""

from collections.abc import Iterator, Mapping
from functools import cache

import torch

from kernels import tuned

OURS, CUBLAS = 1, 2

#: One loop over the inputs of all modalities, or a loop of each, which can skip what no row of a tile has.
ALL, EACH = 1, 2

#: Modalities that one loop can tell apart.
MOST_IN_ONE = 16

#: Programs that a launch should have to keep an H200 busy.
_PROCESSORS = 132


def add_up(rows: int, inputs: int, outputs: int, kind: int) -> dict[str, int]:
    """Of the forward product. `kind` is 1 without mask, 2 if it selects, 3 if it weighs."""
    if rows <= 64:
        few = max(16, tuned.power_of_two(rows))
        default = _tile(ROWS=few, OUTPUTS=32, INPUTS=64, warps=4, stages=4)
    elif rows <= 1024:
        default = _tile(ROWS=64, OUTPUTS=64, INPUTS=64, warps=4, stages=4)
    else:
        wide = _wide(rows, outputs)
        default = _tile(ROWS=128, OUTPUTS=256 if wide else 128, INPUTS=64, warps=8, stages=4)
    programs = _ceil(rows, default["BLOCK_ROWS"]) * _ceil(outputs, default["BLOCK_OUTPUTS"])
    # A part of fewer than four tiles does not pay for the launch that adds the parts up.
    parts = min(2 * _PROCESSORS // programs, _ceil(inputs, 4 * default["BLOCK_INPUTS"]), 16)
    # A large tile takes a processor for itself, and a few of them idle is better than a second pass.
    split = 1 if rows > 1024 and hopper() else tuned.power_of_two(max(parts, 1))
    # Measured on an H200: one loop over all modalities is faster for few rows and slower for many.
    default |= {"SPLIT": split, "LOOPS": ALL if rows <= 64 else EACH, "WAY": OURS}
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs, "kind": kind}
    return tuned.tuned("projection.add_up", sizes, default)


def to_inputs(rows: int, inputs: int, outputs: int, kind: int) -> dict[str, int]:
    """Of the gradients of `inputs` columns of features."""
    side = 64 if rows <= 1024 else 128
    across = 256 if rows > 1024 and _wide(rows, inputs) else side
    default = _tile(ROWS=side, INPUTS=across, OUTPUTS=64, warps=4 if side == 64 else 8, stages=4)
    # Without a mask there is nothing to skip, and cuBLAS writes as few bytes.
    default["WAY"] = CUBLAS if kind == 1 else OURS
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs, "kind": kind}
    return tuned.tuned("projection.to_inputs", sizes, default)


def to_weight(rows: int, inputs: int, outputs: int, kind: int) -> dict[str, int]:
    """Of the gradient of the weight."""
    side = 64 if outputs * inputs <= 512 * 1024 else 128
    # Rows that begin at odd places take registers, too, when they are written.
    across = side if inputs % 16 == 0 else 64
    if rows > 1024 and across == 128 and _wide(outputs, inputs, enough=_PROCESSORS // 4):
        across = 256
    default = _tile(OUTPUTS=side, INPUTS=across, ROWS=64, warps=4 if side == 64 else 8, stages=3)
    programs = _ceil(outputs, side) * _ceil(inputs, across)
    parts = min(_PROCESSORS // programs, _ceil(rows, 8 * default["BLOCK_ROWS"]), 16)
    # Weights would have to be multiplied in between load and product, which keeps Triton from loading ahead.
    default |= {"SPLIT": tuned.power_of_two(max(parts, 1)), "WAY": OURS if kind == 2 else CUBLAS}
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs, "kind": kind}
    return tuned.tuned("projection.to_weight", sizes, default)


def to_both(rows: int, inputs: int, outputs: int, kind: int) -> dict[str, int]:
    """Of both products of the backward in one launch; the way 2 is one after the other, each as it likes.

    The weight's tiles are few and long, and leave processors idle that the others can have. Of many rows each product
    keeps all busy alone.
    """
    some = 1024 < rows <= 16384 and outputs >= 256 and inputs % 16 == 0
    default = _tile(SIDE=128, INPUTS=256 if hopper() else 128, DEPTH=64, warps=8, stages=3)
    programs = _ceil(outputs, 128) * _ceil(inputs, default["BLOCK_INPUTS"])
    parts = min(_PROCESSORS // 2 // programs, _ceil(rows, 512), 16)
    default |= {"SPLIT": tuned.power_of_two(max(parts, 1)), "WAY": OURS if some and hopper() else CUBLAS}
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs, "kind": kind}
    return tuned.tuned("projection.to_both", sizes, default)


def finish(rows: int, outputs: int, whole_rows: bool) -> dict[str, int]:
    """Of bias, LayerNorm and activation. Only LayerNorm needs whole rows."""
    block, several, warps = _rows_tile(rows, outputs, whole_rows, entries=2048)
    default = {"BLOCK_ROWS": several, "num_warps": warps}
    sizes = {"rows": rows, "outputs": outputs}
    return tuned.tuned("projection.finish", sizes, default) | {"BLOCK_OUTPUTS": block}


def to_sum(rows: int, outputs: int, whole_rows: bool, changes: bool) -> dict[str, int]:
    """Of the way back through activation and LayerNorm; unless it `changes` the gradient, of its sum over the rows.

    PROGRAMS is how many share the rows at most.
    """
    block, several, warps = _rows_tile(rows, outputs, whole_rows, entries=1024 if changes else 4096)
    default = {"BLOCK_ROWS": several, "num_warps": warps}
    default |= {"PROGRAMS": 4 * _PROCESSORS, "STAGES": 3} if changes else {"PROGRAMS": 128, "STAGES": 2}
    sizes = {"rows": rows, "outputs": outputs, "steps": 4 if whole_rows else 2 if changes else 1}
    return tuned.tuned("projection.to_sum", sizes, default) | {"BLOCK_OUTPUTS": block}


def fold(parts: int, width: int) -> dict[str, int]:
    """Of adding up partial sums: short blocks where there are many parts of few columns."""
    default = {"BLOCK_PARTS": 1, "BLOCK": 1024, "num_warps": 4}
    if parts > 16:
        default = {"BLOCK_PARTS": min(tuned.power_of_two(parts), 128), "BLOCK": 16, "num_warps": 4}
    return tuned.tuned("projection.fold", {"parts": parts, "width": width}, default)


def groups(widths: Mapping[int, int]) -> Iterator[tuple[list[int], bool]]:
    """The modalities of these widths by fours, and whether their rows begin at places that wide loads can read.

    By fours since a kernel holds its code once for each modality of a launch. The others apart, since their loads take
    registers that large tiles do not leave: `narrow` is for them.
    """
    for even in (True, False):
        alike = [m for m, width in widths.items() if (width % 16 == 0) == even]
        for first in range(0, len(alike), 4):
            yield alike[first : first + 4], even


def narrow(config: dict[str, int]) -> dict[str, int]:
    """The same with tiles of at most 64 x 64."""
    blocks = {name: min(size, 64) for name, size in config.items() if name.startswith("BLOCK")}
    return {**config, **blocks, "num_warps": 4}


def without_way(config: dict[str, int]) -> dict[str, int]:
    """What a kernel of ours takes of it."""
    return {name: value for name, value in config.items() if name != "WAY"}


@cache
def hopper() -> bool:
    """Whether this process's first GPU is of this kind, or later."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 9


def _wide(height: int, width: int, enough: int = 2 * _PROCESSORS // 3) -> bool:
    """Whether tiles of 128 x 256 suit this card and are enough to keep it busy."""
    return hopper() and width > 128 and _ceil(height, 128) * _ceil(width, 256) >= enough


def _tile(*, warps: int, stages: int, **blocks: int) -> dict[str, int]:
    named = {f"BLOCK_{name}": size for name, size in blocks.items()}
    return {**named, "GROUP": 8, "num_warps": warps, "num_stages": stages}


def _rows_tile(rows: int, outputs: int, whole_rows: bool, *, entries: int) -> tuple[int, int, int]:
    """Columns, rows and warps of a tile of about `entries` entries, fewer if rows are few."""
    whole = tuned.power_of_two(outputs)
    block = max(whole if whole_rows else min(whole, 256), 16)
    several = min(max(entries // block, 1), tuned.power_of_two(_ceil(rows, _PROCESSORS)))
    # Eight entries a thread are one of the widest loads in half precision.
    warps = max(1, min(block * several // 256, 4 if block <= 1024 else 16))
    return block, several, warps


def _ceil(size: int, block: int) -> int:
    return -(-size // block)

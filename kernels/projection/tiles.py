"""How the kernels of the masked projection are launched where nobody measured: guesses for H100 and H200, by size.

Every product has two ways: 1 is a kernel of ours, 2 is cuBLAS. Knows no tensors.
"""

from collections.abc import Iterator, Mapping

from kernels import tuned

OURS, CUBLAS = 1, 2

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
        default = _tile(ROWS=128, OUTPUTS=128, INPUTS=64, warps=8, stages=4)
    programs = _ceil(rows, default["BLOCK_ROWS"]) * _ceil(outputs, default["BLOCK_OUTPUTS"])
    # A part of fewer than four tiles does not pay for the launch that adds the parts up.
    parts = min(2 * _PROCESSORS // programs, _ceil(inputs, 4 * default["BLOCK_INPUTS"]), 16)
    default |= {"SPLIT": tuned.power_of_two(max(parts, 1)), "WAY": OURS}
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs, "kind": kind}
    return tuned.tuned("projection.add_up", sizes, default)


def to_inputs(rows: int, inputs: int, outputs: int, kind: int) -> dict[str, int]:
    """Of the gradients of `inputs` columns of features."""
    side = 64 if rows <= 1024 else 128
    default = _tile(ROWS=side, INPUTS=side, OUTPUTS=64, warps=4 if side == 64 else 8, stages=4)
    # Without a mask there is nothing to skip, and cuBLAS writes as few bytes.
    default["WAY"] = CUBLAS if kind == 1 else OURS
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs, "kind": kind}
    return tuned.tuned("projection.to_inputs", sizes, default)


def to_weight(rows: int, inputs: int, outputs: int, kind: int) -> dict[str, int]:
    """Of the gradient of the weight."""
    side = 64 if outputs * inputs <= 512 * 1024 else 128
    # Rows that begin at odd places take registers, too, when they are written.
    across = side if inputs % 16 == 0 else 64
    default = _tile(OUTPUTS=side, INPUTS=across, ROWS=64, warps=4 if side == 64 else 8, stages=3)
    programs = _ceil(outputs, side) * _ceil(inputs, across)
    parts = min(_PROCESSORS // programs, _ceil(rows, 8 * default["BLOCK_ROWS"]), 16)
    # Weights would have to be multiplied in between load and product, which keeps Triton from loading ahead.
    default |= {"SPLIT": tuned.power_of_two(max(parts, 1)), "WAY": OURS if kind == 2 else CUBLAS}
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs, "kind": kind}
    return tuned.tuned("projection.to_weight", sizes, default)


def finish(rows: int, outputs: int, whole_rows: bool) -> dict[str, int]:
    """Of bias, LayerNorm and activation. Only LayerNorm needs whole rows."""
    block, several, warps = _rows_tile(rows, outputs, whole_rows, entries=2048)
    default = {"BLOCK_ROWS": several, "num_warps": warps}
    sizes = {"rows": rows, "outputs": outputs}
    return tuned.tuned("projection.finish", sizes, default) | {"BLOCK_OUTPUTS": block}


def to_sum(rows: int, outputs: int, whole_rows: bool) -> dict[str, int]:
    """Of the way back through activation and LayerNorm. PROGRAMS is how many share the rows at most."""
    block, several, warps = _rows_tile(rows, outputs, whole_rows, entries=1024)
    default = {"BLOCK_ROWS": several, "PROGRAMS": 4 * _PROCESSORS, "num_warps": warps}
    sizes = {"rows": rows, "outputs": outputs}
    return tuned.tuned("projection.to_sum", sizes, default) | {"BLOCK_OUTPUTS": block}


def fold(parts: int, width: int) -> dict[str, int]:
    """Of adding up partial sums: short blocks where there are many parts of few columns."""
    many = parts > 16
    default = {"BLOCK_PARTS": 32 if many else 1, "BLOCK": 32 if many else 1024, "num_warps": 4}
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


def _tile(*, warps: int, stages: int, **blocks: int) -> dict[str, int]:
    named = {f"BLOCK_{name}": size for name, size in blocks.items()}
    return {**named, "GROUP": 8, "num_warps": warps, "num_stages": stages}


def _rows_tile(rows: int, outputs: int, whole_rows: bool, *, entries: int) -> tuple[int, int, int]:
    """Columns, rows and warps of a tile of about `entries` entries, fewer if rows are few."""
    whole = tuned.power_of_two(outputs)
    block = max(whole if whole_rows else min(whole, 256), 16)
    several = min(max(entries // block, 1), tuned.power_of_two(_ceil(rows, _PROCESSORS)))
    warps = max(1, min(block * several // 128, 16))
    return block, several, warps


def _ceil(size: int, block: int) -> int:
    return -(-size // block)

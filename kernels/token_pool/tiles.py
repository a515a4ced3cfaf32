"""How token pooling's kernels are launched: tiles, warps, and how many programs share a row. Knows no maths."""

from dataclasses import dataclass

from torch import Tensor

from kernels.tuned import power_of_two, tuned

#: Programs that keep a large card busy to the end although rows differ in length.
_PROGRAMS = 2048
#: Of tokens, below which a split costs more than it gains; fewer if there are too few programs anyway.
_SHORTEST_SPLIT, _SHORTEST_SPLIT_OF_FEW, _FEW = 64, 32, 64
#: What a warp loads at once, 16 bytes a lane.
_WARP_BYTES = 512

#: Numbers of the splits that one program holds at once: more do not fit in its registers.
_JOINED_AT_ONCE = 2048


@dataclass(frozen=True)
class Launch:
    #: Programs a row.
    splits: int
    #: The constants of the kernel that reads tokens.
    tiles: dict[str, int]

    @property
    def joining(self) -> dict[str, int]:
        """The constants of the kernel that joins the splits."""
        shape = {name: self.tiles[name] for name in ("WIDTH", "W", "CHUNKS")}
        step = min(power_of_two(self.splits), max(1, _JOINED_AT_ONCE // self.tiles["W"]))
        warps = 4 if step * self.tiles["W"] < _JOINED_AT_ONCE else 8
        steps = {"STEP": step, "STEPS": -(-self.splits // step), "SHARE": self.tiles["TOKENS"]}
        return {**shape, **steps, "num_warps": warps}


def launch(kernel: str, tokens: Tensor, rows: int, most: int, *, most_chunks: int, joins: bool) -> Launch:
    """Of a kernel whose programs take one split each of a row of about `most` tokens; `joins`: they are added up."""
    width = tokens.shape[-1]
    problem = {"rows": rows, "tokens": most, "width": width, "bytes": tokens.element_size()}
    default = {
        "SPLITS": _splits(rows, most, joins),
        **_tiles(width, tokens.element_size(), most, most_chunks),
    }
    config = tuned(f"token_pool.{kernel}", problem, default)
    splits, block = min(config.pop("SPLITS"), max(1, most)), config["W"]
    return Launch(splits, {**config, "WIDTH": width, "CHUNKS": -(-width // block)})


def _splits(rows: int, most: int, joins: bool) -> int:
    shortest = _SHORTEST_SPLIT if joins and rows >= _FEW else _SHORTEST_SPLIT_OF_FEW
    return max(1, min(_PROGRAMS // rows, most // shortest))


def _tiles(width: int, item: int, most: int, most_chunks: int) -> dict[str, int]:
    """Tiles as wide as a warp loads at once, so that each token lies in one warp; wider ones for wide tokens."""
    warp = _WARP_BYTES // item
    widest = power_of_two(width)
    block = min(widest, max(warp, widest // most_chunks))
    warps = 8 if widest > 2048 else 1 if most == 1 else 4
    tokens = min(max(1, warps * warp // block), 16, power_of_two(most))
    return {"W": block, "TOKENS": tokens, "STAGES": 3, "num_warps": warps}

"""The rows of both samples as the discrepancy's kernels take them: one buffer, padded, centred, with their weights."""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from kernels import tuned
from kernels.mmd import device

#: A side's rows are padded to a multiple of this, which every block of rows or columns divides.
UNIT = 128
#: A block of products takes at most so many of D at a time; more are padded to a multiple of it.
WIDEST = 256
#: Parts of the rows whose column sums are added up by every program that needs the mean.
MOST_PARTS = 32


@dataclass(frozen=True)
class Layout:
    """Where the rows lie: x's at the front, each side padded with zeros."""

    x_padded: int
    padded: int
    #: D and its padding.
    width: int

    @property
    def sizes(self) -> tuple[int, int]:
        return self.x_padded, self.padded


def layout(x: Tensor, y: Tensor) -> Layout:
    x_padded, y_padded = (triton.cdiv(len(rows), UNIT) * UNIT for rows in (x, y))
    d = x.shape[1]
    width = max(tuned.power_of_two(d), 16) if d <= WIDEST else triton.cdiv(d, WIDEST) * WIDEST
    return Layout(x_padded, x_padded + y_padded, width)


@dataclass(frozen=True)
class Samples:
    x: Tensor
    y: Tensor
    weight_x: Tensor | None
    weight_y: Tensor | None
    lie: Layout

    def measured(
        self, centre: Tensor, scales: Tensor, bandwidth: Tensor | None, num_kernels: int, unbiased: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The prepared rows, as `known`; fills `centre` and `scales`."""
        x_padded, padded = self.lie.sizes
        per_part = triton.cdiv(padded // UNIT, MOST_PARTS) * UNIT
        parts, d = triton.cdiv(padded, per_part), self.x.shape[1]
        sums, counts, shift = (
            self.x.new_empty(shape, dtype=torch.float32) for shape in ((parts, 2, d), (parts, 4), ())
        )
        config = tuned.tuned(
            "mmd.totals",
            {"rows": padded, "width": self.lie.width},
            {"BLOCK": 32, "WIDTH": 64, "num_warps": 4},
        )
        device.totals[(parts, triton.cdiv(d, config["WIDTH"]))](
            self.x, self.y, self.weight_x, self.weight_y, sums, counts,
            len(self.x), len(self.y), d, x_padded, padded, per_part, *self._strides, **self._has, **config,
        )  # fmt: skip
        prepared, partials = self._prepared(sums, counts, centre, scales, shift, parts)
        block = padded // len(partials)
        device.settle[(1,)](
            partials, shift, counts, bandwidth, scales, x_padded // block, len(partials), parts,
            HAS_BANDWIDTH=bandwidth is not None, UNBIASED=unbiased, KERNELS=num_kernels,
            WIDEST=2.0 ** (num_kernels - 1 - num_kernels // 2),
            PARTS=tuned.power_of_two(parts), BLOCK=256, num_warps=4,
        )  # fmt: skip
        return prepared

    def known(self, centre: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The rows prepared as before, by what the forward kept; as their products take them; lengths and shares."""
        return self._prepared(None, None, centre, scales, None, 1)[0]

    def _prepared(
        self,
        sums: Tensor | None,
        counts: Tensor | None,
        centre: Tensor,
        scales: Tensor,
        shift: Tensor | None,
        parts: int,
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
        x_padded, padded = self.lie.sizes
        z = self.x.new_empty(padded, self.lie.width)
        is_split = z.element_size() == 4 and not _takes_tf32()
        factor = z.new_empty(2, *z.shape) if is_split else z
        norms, shares = self.x.new_empty(2, padded, dtype=torch.float32)
        config = tuned.tuned(
            "mmd.prepare",
            {"rows": padded, "width": self.lie.width},
            {"BLOCK": 32, "WIDTH": 64, "num_warps": 4},
        )
        width = min(config.pop("WIDTH"), self.lie.width)
        blocks = padded // config["BLOCK"]
        is_known = counts is None
        partials = self.x.new_empty(0 if is_known else blocks, 4, dtype=torch.float32)
        device.prepare[(blocks,)](
            self.x, self.y, self.weight_x, self.weight_y, sums, counts, centre, scales, z, factor, norms,
            shares, partials, shift, len(self.x), len(self.y), self.x.shape[1], x_padded, parts, *self._strides,
            **self._has, KNOWN=is_known, TF32=z.element_size() == 4 and not is_split, SPLIT=is_split,
            PADDED_D=self.lie.width, PARTS=tuned.power_of_two(parts), WIDTH=width, **config,
        )  # fmt: skip
        return (z, factor, norms, shares), partials

    @property
    def _strides(self) -> tuple[int, ...]:
        weights = (0 if weight is None else weight.stride(0) for weight in (self.weight_x, self.weight_y))
        return *self.x.stride(), *self.y.stride(), *weights

    @property
    def _has(self) -> dict[str, bool]:
        return {"HAS_X": self.weight_x is not None, "HAS_Y": self.weight_y is not None}


def _takes_tf32() -> bool:
    """Whether products of float32 are taken in TF32, by torch's own setting."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"

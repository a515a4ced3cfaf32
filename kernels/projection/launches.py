"""Each kernel of the forward as a function of tensors, and what the backward shares. Knows no order of work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.projection import device, tiles


@dataclass(frozen=True)
class Counts:
    """What each entry counts for, [rows, modalities] as numbers, and whether more than 0 or not of it matters."""

    numbers: Tensor | None
    weighted: bool

    @property
    def kind(self) -> int:
        """As `tiles` has it: 1 without mask, 2 if it selects, 3 if it weighs."""
        return 1 if self.numbers is None else 3 if self.weighted else 2

    def strides(self) -> tuple[int, int]:
        return (0, 0) if self.numbers is None else (self.numbers.stride(0), self.numbers.stride(1))

    def column(self, m: int, instead: Tensor) -> Tensor:
        """Of modality `m`; `instead`, which nothing reads, if there is no mask."""
        return instead if self.numbers is None else self.numbers[:, m]


def counts(mask: Tensor | None) -> Counts:
    """A mask as the kernels read it. Of bools nothing is copied."""
    if mask is None:
        return Counts(None, False)
    if mask.dtype == torch.bool:
        return Counts(mask.view(torch.uint8), False)
    return Counts(mask, True)


def add_up(
    xs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    mask: Counts,
    mean: bool,
    y: Tensor | None,
    z: Tensor | None,
    activation: str,
    config: dict[str, int],
) -> None:
    """Into `y` and `z` [rows, outputs]; if the configuration splits the inputs, into `z` [SPLIT, rows, outputs]."""
    (rows, outputs), config = (xs[0].shape[0], weight.shape[0]), tiles.without_way(config)
    if mask.weighted or len(xs) > tiles.MOST_IN_ONE or any(x.stride(1) != 1 for x in xs):
        config["LOOPS"] = tiles.EACH
    some = y if z is None else z
    grid = (
        triton.cdiv(rows, config["BLOCK_ROWS"]) * triton.cdiv(outputs, config["BLOCK_OUTPUTS"]),
        config["SPLIT"],
    )
    device.add_up[grid](
        tuple(xs),
        tuple(x.stride(0) for x in xs),
        tuple(x.stride(1) for x in xs),
        tuple(x.shape[1] for x in xs),
        weight,
        *weight.stride(),
        dense(bias, weight),
        weight if mask.numbers is None else mask.numbers,
        *mask.strides(),
        some if y is None else y,
        some,
        rows,
        outputs,
        MODALITIES=len(xs),
        HAS_BIAS=bias is not None,
        HAS_MASK=mask.numbers is not None,
        WEIGHTED=mask.weighted,
        MEAN=mean,
        ACTIVATION=activation,
        STORES_Y=y is not None,
        STORES_Z=z is not None,
        **config,
    )


def finish(
    sums: Tensor,
    bias: Tensor | None,
    mask: Counts,
    mean: bool,
    modalities: int,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    activation: str,
    y: Tensor,
    z: Tensor | None,
) -> None:
    """From `sums` [rows, outputs], or their parts [SPLIT, rows, outputs], to `y` and `z`, which may be `sums`."""
    rows, outputs = y.shape
    config = tiles.finish(rows, outputs, norm_weight is not None)
    grid = triton.cdiv(rows, config["BLOCK_ROWS"]), triton.cdiv(outputs, config["BLOCK_OUTPUTS"])
    device.finish[grid](
        sums,
        dense(bias, sums),
        dense(norm_weight, sums),
        dense(norm_bias, sums),
        sums if mask.numbers is None else mask.numbers,
        *mask.strides(),
        y,
        y if z is None else z,
        rows,
        outputs,
        eps,
        MODALITIES=modalities,
        HAS_BIAS=bias is not None,
        HAS_MASK=mask.numbers is not None,
        MEAN=mean,
        HAS_NORM=norm_weight is not None,
        HAS_NORM_BIAS=norm_bias is not None,
        ACTIVATION=activation,
        STORES_Z=z is not None,
        SPLIT=len(sums) if sums.ndim == 3 else 1,
        **config,
    )


def weigh(source: Tensor, shares: Counts, m: int, weighed: Tensor) -> None:
    """`source` [rows, width] times what modality `m` counts for, into `weighed`, whose columns lie side by side."""
    rows, width = source.shape
    if not source.numel():
        return
    config: dict[str, Any] = {"BLOCK_ROWS": 8, "BLOCK": 256, "num_warps": 4}
    device.weigh[triton.cdiv(rows, config["BLOCK_ROWS"]), triton.cdiv(width, config["BLOCK"])](
        source,
        *source.stride(),
        shares.column(m, source),
        shares.strides()[0],
        weighed,
        weighed.stride(0),
        rows,
        width,
        WEIGHTED=shares.weighted,
        **config,
    )


def dense(vector: Tensor | None, instead: Tensor) -> Tensor:
    """Side by side; `instead`, which nothing reads, if there is none."""
    return instead if vector is None else vector.contiguous()

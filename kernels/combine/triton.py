"""Combining modalities in Triton: one kernel each way, and a second for the gradients of a norm."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from kernels import tuned
from kernels.combine import device
from kernels.combine.reference import reads_entries

#: A program holds whole rows in its registers.
WIDEST = 16384
MOST_MODALITIES = 64


def refuses_forward(first: Tensor, others: Sequence[Tensor], *_: object) -> str | None:
    return _refuses(first.shape[1], 1 + len(others))


def refuses_backward(grad: Tensor, *arguments: object) -> str | None:
    needs: Sequence[bool] = arguments[-1]  # type: ignore[assignment]
    return _refuses(grad.shape[1], len(needs) - 3)


def forward(
    first: Tensor,
    others: Sequence[Tensor],
    mask: Tensor | None,
    gates: Tensor | None,
    mode: str,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    activation: str,
) -> Tensor:
    """As the reference's."""
    xs, (rows, width) = (first, *others), first.shape
    y = first.new_empty(rows, width)
    if y.numel() == 0:
        return y
    config = _forward_config(rows, width, _tiles(len(xs), gates))
    device.forward_rows[(triton.cdiv(rows, config["ROWS"]),)](
        *_strided(xs),
        *_sources(mask, gates),
        _packed(norm_weight),
        _packed(norm_bias),
        y,
        rows,
        width,
        eps,
        M=len(xs),
        MODE=_way(mode, gates),
        ACTIVATION=activation,
        BLOCK=tuned.power_of_two(width),
        **config,
    )
    return y


def backward(
    grad: Tensor,
    xs: Sequence[Tensor],
    mask: Tensor | None,
    gates: Tensor | None,
    mode: str,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    activation: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    """As the reference's."""
    need_gates, need_weight, need_bias, *need_xs = needs
    (rows, width), modalities = grad.shape, len(need_xs)
    dgates = _empty(gates, need_gates)
    dweight, dbias = _empty(norm_weight, need_weight), _empty(norm_bias, need_bias)
    dxs = [grad.new_empty(rows, width) if needed else None for needed in need_xs]
    if grad.numel() == 0:
        for vector in (dweight, dbias):
            if vector is not None:
                vector.zero_()
        return _given(dgates, dweight, dbias, *dxs)

    kinds = 2 if dweight is not None else int(dbias is not None)
    config = _backward_config(rows, width, _tiles(modalities, gates), adds_up=kinds > 0)
    programs = min(triton.cdiv(rows, config["ROWS"]), config.pop("PROGRAMS"))
    partials = grad.new_empty(kinds, programs, width, dtype=torch.float32) if kinds else None
    device.backward_rows[(programs,)](
        grad,
        *grad.stride(),
        *_strided(xs or [grad] * modalities),
        *_sources(mask, gates),
        _packed(norm_weight),
        _packed(norm_bias),
        dgates,
        # A stand-in where none is needed: the kernel does not touch it.
        tuple(grad if dx is None else dx for dx in dxs),
        partials,
        rows,
        width,
        eps,
        M=modalities,
        MODE=_way(mode, gates),
        ACTIVATION=activation,
        READS=reads_entries(mode, norm_weight, activation),
        NEEDS=sum(needed << m for m, needed in enumerate(need_xs)),
        PARTIALS=kinds,
        BLOCK=tuned.power_of_two(width),
        **config,
    )
    if partials is not None:
        _add_partials(partials, dweight, dbias)
    return _given(dgates, dweight, dbias, *dxs)


def _add_partials(partials: Tensor, dweight: Tensor | None, dbias: Tensor | None) -> None:
    _, programs, width = partials.shape
    config = tuned.tuned(
        "combine.partials",
        {"programs": programs, "width": width},
        {"SLICE": 64 if programs > 32 else 16, "BLOCK": 32, "num_warps": 4},
    )
    device.add_partials[(triton.cdiv(width, config["BLOCK"]),)](
        partials, dbias, dweight, programs, width, **config
    )


def _backward_config(rows: int, width: int, tiles: int, *, adds_up: bool) -> dict[str, int]:
    """One row at a time. A program goes on from row to row only where it has the norm's gradients to add up."""
    return tuned.tuned(
        "combine.backward",
        {"rows": rows, "width": width, "tiles": tiles, "partials": 2 if adds_up else 1},
        {
            "ROWS": 1,
            "num_warps": min(max(tuned.power_of_two(width) // 256, 1), 16),
            "PROGRAMS": 1056 if adds_up else rows,
        },
    )


def _tiles(modalities: int, gates: Tensor | None) -> int:
    """Of a row that a program holds: the modalities, and their gates if each entry has its own."""
    return 2 * modalities if gates is not None and gates.ndim == 3 else modalities


def _forward_config(rows: int, width: int, tiles: int) -> dict[str, int]:
    # All tiles of a row are held at once: the more there are, the fewer entries of each a thread takes.
    entries = 16 if tiles <= 4 else 8 if tiles <= 8 else 4
    block = tuned.power_of_two(width)
    rows_held = max(1, 128 * entries // block)
    # Enough programs for every multiprocessor of a large GPU, if there are rows enough.
    while rows_held > 1 and rows < 264 * rows_held:
        rows_held //= 2
    warps = min(max(rows_held * block // (32 * entries), 1), 16)
    return tuned.tuned(
        "combine.forward",
        {"rows": rows, "width": width, "tiles": tiles},
        {"ROWS": rows_held, "num_warps": warps},
    )


def _refuses(width: int, modalities: int) -> str | None:
    if width > WIDEST:
        return f"its kernel holds rows of at most {WIDEST} entries"
    if modalities > MOST_MODALITIES:
        return f"its kernel takes at most {MOST_MODALITIES} modalities"
    return None


def _way(mode: str, gates: Tensor | None) -> str:
    return "gated entries" if gates is not None and gates.ndim == 3 else mode


def _strided(xs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[int, ...], tuple[int, ...]]:
    return tuple(xs), tuple(x.stride(0) for x in xs), tuple(x.stride(1) for x in xs)


def _sources(mask: Tensor | None, gates: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """Each beside its strides, which are read only if it is there."""
    mask_strides = (0, 0) if mask is None else mask.stride()
    gate_strides = (0, 0, 0) if gates is None else (*gates.stride(), 0)[:3]
    return mask, *mask_strides, gates, *gate_strides


def _packed(vector: Tensor | None) -> Tensor | None:
    return None if vector is None else vector.contiguous()


def _empty(source: Tensor | None, needed: bool) -> Tensor | None:
    return source.new_empty(source.shape) if needed and source is not None else None


def _given(*gradients: Tensor | None) -> list[Tensor]:
    return [gradient for gradient in gradients if gradient is not None]

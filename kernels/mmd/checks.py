"""What a call of the maximum mean discrepancy must look like; a wrong one is refused in words. Knows no maths."""

from torch import Tensor

from kernels.shapes import shown

MOST_KERNELS = 10


def check(
    x: Tensor,
    y: Tensor,
    bandwidth: float | Tensor | None,
    num_kernels: int,
    weight_x: Tensor | None,
    weight_y: Tensor | None,
) -> None:
    """Raises ValueError that names the argument, what it is and what it should be."""
    if not 1 <= num_kernels <= MOST_KERNELS:
        raise ValueError(f"num_kernels is {num_kernels}; it is from 1 to {MOST_KERNELS}")
    for name, rows in (("x", x), ("y", y)):
        if rows.ndim != 2 or not rows.is_floating_point():
            raise ValueError(f"{name} is {shown(rows)}; it is floating point of shape [rows, D]")
    if x.shape[1] != y.shape[1] or x.dtype != y.dtype or x.device != y.device:
        raise ValueError(
            f"x is {shown(x)} and y is {shown(y)}: they must agree in all but the number of rows"
        )
    _check_bandwidth(bandwidth, x)
    _check_weight("weight_x", weight_x, x, "x")
    _check_weight("weight_y", weight_y, y, "y")


def _check_bandwidth(bandwidth: float | Tensor | None, x: Tensor) -> None:
    if bandwidth is None:
        return
    if not isinstance(bandwidth, Tensor):
        if not bandwidth > 0:
            raise ValueError(f"bandwidth is {bandwidth}; it is above 0")
        return
    if bandwidth.ndim != 0 or not bandwidth.is_floating_point() or bandwidth.device != x.device:
        raise ValueError(
            f"bandwidth is {shown(bandwidth)}; as a tensor it is floating point, without axes, on the device of x"
        )
    _check_constant("bandwidth", bandwidth)


def _check_weight(name: str, weight: Tensor | None, rows: Tensor, rows_name: str) -> None:
    if weight is None:
        return
    if weight.ndim != 1 or weight.shape[0] != rows.shape[0] or weight.is_complex():
        raise ValueError(f"{name} is {shown(weight)}; it has one number a row: [{rows.shape[0]}]")
    if weight.device != rows.device:
        raise ValueError(
            f"{name} is {shown(weight)} and {rows_name} is {shown(rows)}: they must share a device"
        )
    _check_constant(name, weight)


def _check_constant(name: str, tensor: Tensor) -> None:
    if tensor.requires_grad:
        raise ValueError(f"{name} requires a gradient and none is computed for it; pass {name}.detach()")

"""What the checks of several ops have in common: how a tensor is named in a refusal, and what a vector must be."""

from torch import Tensor


def shown(tensor: Tensor) -> str:
    """As a refusal names it: dtype, shape, device."""
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"


def check_vector(name: str, vector: Tensor, width: int, beside: Tensor, beside_name: str) -> None:
    """Raises ValueError for what is not floating point of shape [width], or is on another device."""
    if vector.ndim != 1 or vector.shape[0] != width or not vector.is_floating_point():
        raise ValueError(f"{name} is {shown(vector)}; it is floating point of shape [{width}]")
    if vector.device != beside.device:
        raise ValueError(
            f"{name} is {shown(vector)} and {beside_name} is {shown(beside)}: they must share a device"
        )

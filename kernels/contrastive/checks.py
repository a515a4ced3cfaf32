"""What a call of a contrastive loss must look like; a wrong one is refused in words. Knows no maths."""

from torch import Tensor

from kernels.shapes import shown


def check(image: Tensor, text: Tensor, scalars: dict[str, Tensor], sizes: dict[str, int]) -> None:
    """Raises ValueError that names the argument, what it is and what it should be.

    `scalars` are the learned numbers by name, `sizes` the amounts of memory in bytes.
    """
    if image.ndim != 2 or not image.is_floating_point():
        raise ValueError(f"image is {shown(image)}; it is floating point of shape [rows, width]")
    if text.shape != image.shape or text.dtype != image.dtype or text.device != image.device:
        raise ValueError(f"text is {shown(text)} and image is {shown(image)}: they must agree, row by row")
    for name, scalar in scalars.items():
        _check_scalar(name, scalar, image)
    for name, size in sizes.items():
        if size < 0:
            raise ValueError(f"{name} is {size}; it is a number of bytes, 0 or more")


def _check_scalar(name: str, scalar: Tensor, image: Tensor) -> None:
    if scalar.ndim != 0 or not scalar.is_floating_point():
        raise ValueError(f"{name} is {shown(scalar)}; it is one floating point number, of shape []")
    if scalar.device != image.device:
        raise ValueError(f"{name} is {shown(scalar)} and image is {shown(image)}: they must share a device")

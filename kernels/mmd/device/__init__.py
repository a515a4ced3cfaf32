"""The kernels of the maximum mean discrepancy, on rows that lie as `samples.py` says.

Both samples are one buffer of padded rows, x's first: each side starts at a multiple of every block of rows, so that a
block never holds rows of both. A pair of blocks then has one factor, and a row that does not count is zeros.
"""

from kernels.mmd.device.pulls import gradients, pull, slopes
from kernels.mmd.device.rows import prepare, totals
from kernels.mmd.device.scales import settle
from kernels.mmd.device.value import finish, triangle

__all__ = ["finish", "gradients", "prepare", "pull", "settle", "slopes", "totals", "triangle"]

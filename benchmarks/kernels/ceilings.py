"""What the card can do at best: the ceilings that every other number is read against."""

import torch

from benchmarks.kernels.timing import device_us


def measure() -> dict[str, float]:
    """Copy bandwidth in TB/s (read + written) and the bf16 matrix product's rate in TFLOP/s, both on random data."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    # Not `copy_`: in a CUDA graph that goes to a copy engine, which is slower than the multiprocessors.
    copy = device_us(lambda: torch.add(source, 1, out=target))
    found = {"copy_tb_s": 2 * source.nbytes / copy / 1e6}
    for rows, columns, inner in ((8192, 8192, 8192), (4096, 1024, 2048)):
        a = torch.randn(rows, inner, device="cuda", dtype=torch.bfloat16)
        b = torch.randn(columns, inner, device="cuda", dtype=torch.bfloat16)
        took = device_us(lambda a=a, b=b: a @ b.T)
        found[f"gemm_{rows}x{columns}x{inner}_tflop_s"] = 2 * rows * columns * inner / took / 1e6
    return found

"""Compiles what jobs launch most, before there is a job: into Triton's cache on disk, which all processes share."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module

#: Folders that hold a `typical.py`.
OPS = ("token_pool", "projection", "combine", "mmd", "contrastive")


def warm(ops: Sequence[str] = OPS, device: str = "cuda") -> Iterator[tuple[str, int]]:
    """Runs every op's typical launches, the ops in processes beside each other; yields an op's name and their number.

    What is in the cache already costs a few seconds in all. Raises what a kernel raised.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(ops), mp_context=spawn) as pool:
        running = {pool.submit(launch, op, device): op for op in ops}
        for ended in as_completed(running):
            yield running[ended], ended.result()


def launch(op: str, device: str) -> int:
    """The typical launches of one op; how many cases there are."""
    cases = list(import_module(f"kernels.{op}.typical").typical(device))
    for _, run in cases:
        run()
    return len(cases)

"""How many cores one torch operation uses. The setting is the process's, so it is put back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[int]:
    """One core an operation; gives the number of cores, for as many Python threads.

    Small layers gain little from sharing cores, and at each of them all wait for the slowest: on a busy
    machine that costs ten times what it saves. One thread also makes the same bits on every machine size.
    """
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield cores
    finally:
        torch.set_num_threads(cores)

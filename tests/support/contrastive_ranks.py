"""Two processes with a half of the rows each, and what one process with all of them finds."""

import gc
import weakref
from pathlib import Path

import torch
import torch.distributed.nn  # first imported within a group, it keeps that group by its defaults
from torch import Tensor, distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from kernels import dispatch
from support.contrastive import Case, case, loss, results

PROCESSES = 2

_TILES = {"logits_budget": 0, "chunk_bytes": 4 * 7 * 9}
CALLS: list[tuple[str, dict[str, int]]] = [("clip", _TILES), ("clip", {}), ("siglip", _TILES)]

#: `features`: of the loss alone; `model`: of a model under DistributedDataParallel.
Found = dict[str, dict[str, Tensor]]


class Towers(torch.nn.Module):
    """Two linear layers and the learned numbers, as a training step has them."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(3)
        self.image = torch.nn.Parameter(torch.randn(width, width, generator=random))
        self.text = torch.nn.Parameter(torch.randn(width, width, generator=random))
        self.log_scale = torch.nn.Parameter(torch.tensor(1.5))
        self.bias = torch.nn.Parameter(torch.tensor(-2.0)) if kind == "siglip" else None

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor | None, ...]:
        return image @ self.image, text @ self.text, self.log_scale.exp(), self.bias


def asked(kind: str, **options: object) -> Case:
    return case(kind, rows=22, width=8, scale=5.0, bias=-2.0, **options)


def trained(model: torch.nn.Module, rows: Case) -> dict[str, Tensor]:
    """The parameters' gradients after one step's backward, and the loss."""
    image, text, scale, bias = model(rows.image.detach(), rows.text.detach())
    value = loss(Case(image, text, scale, bias, rows.options))
    value.backward()
    gradients = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
    return gradients | {"loss": value.detach()}


def found(backend: str, folder: Path) -> list[list[Found]]:
    """What each process finds of each of `CALLS`."""
    multiprocessing.spawn(_run, (backend, str(folder)), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def _run(rank: int, backend: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    with dispatch.using(backend):
        every = [_found(rank, kind, options) for kind, options in CALLS]
    torch.save(every, f"{folder}/{rank}.pt")
    _leave()


def _leave() -> None:
    """End the group and its threads: one that outlives the interpreter may abort the process.

    A thread of gloo that lets go of a tensor asks for the interpreter's lock; if that is gone by
    then, the process ends by SIGABRT with its work done.
    """
    group = weakref.ref(distributed.group.WORLD)
    gc.collect()
    distributed.destroy_process_group()
    assert group() is None, "something holds the process group, and so its threads"


def _found(rank: int, kind: str, options: dict[str, int]) -> Found:
    rows = asked(kind, group=distributed.group.WORLD, **options)
    own = rows.rows(slice(rank * 11, rank * 11 + 11))
    model = DistributedDataParallel(Towers(8, kind))
    return {"features": results(loss, own), "model": trained(model, own)}

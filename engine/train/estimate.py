"""What a training will hold in memory, told before its first step, and how many rows at once fit on a GPU.

What belongs to the weights is counted. What a row's pass takes is measured by two small ones where there is a GPU; no GPU was
at hand when this was written.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from engine.data.dataset import Examples
from engine.models.multimodal import Multimodal
from engine.train.gpu_memory import release
from engine.train.losses import Criterion
from engine.train.plan import Plan
from engine.train.precision import autocast

#: Of the free memory: the rest is for what the libraries take, longer rows than those tried, and holes.
SHARE = 0.85
#: Rows of the larger pass that is measured; the smaller one has a single row.
PROBE_ROWS = 4
#: Numbers that an optimiser keeps for each weight that it changes.
_STATES = {"adamw": 2, "sgd": 1}


@dataclass(frozen=True)
class Estimate:
    """In bytes."""

    weights: int
    gradients: int
    optimiser: int
    average: int
    #: Of a row's forward and backward pass; None: not measured.
    a_row: int | None = None

    @property
    def whatever_the_rows(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.average

    def most_rows(self, usual: int, room: int) -> int:
        """The largest power of two up to `usual`, or `usual`, that fits in `room`; 1 if none does.

        `room` is the free bytes with the weights in place already.
        """
        left = SHARE * room - (self.whatever_the_rows - self.weights)
        if self.a_row is None or usual * self.a_row <= left:
            return usual
        rows = 1
        while rows * 2 < usual and rows * 2 * self.a_row <= left:
            rows *= 2
        return rows

    def words(self, rows: int) -> str:
        """For the user, of a step with so many rows at once."""
        parts = [("weights", self.weights), ("gradients", self.gradients), ("optimiser", self.optimiser)]
        parts += [("average", self.average)] if self.average else []
        told = ", ".join(f"{name} {_size(size)}" for name, size in parts)
        if self.a_row is None:
            return f"Memory, without what a row's pass takes: {_size(self.whatever_the_rows)} ({told})."
        total = self.whatever_the_rows + rows * self.a_row
        return f"Memory with {rows} rows at once: about {_size(total)} ({told}, a row's pass {_size(self.a_row)})."


def counted(model: Multimodal, plan: Plan) -> Estimate:
    """What belongs to the weights, whatever the rows are."""
    held = [*model.parameters(), *model.buffers()]
    trained = sum(p.numel() * p.element_size() for _, p in model.trained())
    states = 0 if plan.optimizer == "sgd" and not plan.momentum else _STATES[plan.optimizer]
    return Estimate(
        weights=sum(tensor.numel() * tensor.element_size() for tensor in held),
        gradients=trained,
        optimiser=states * trained,
        average=trained if plan.ema is not None else 0,
    )


def measured(
    estimate: Estimate, model: Multimodal, examples: Examples, plan: Plan, loss: Criterion
) -> Estimate:
    """With what a row's pass takes, if the network is on a GPU and a few rows fit. Draws from the generators."""
    device = next(model.parameters()).device
    if device.type != "cuda" or len(examples) < 2:
        return estimate

    def peak(rows: int) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        one_pass(model, examples, rows, plan, loss)
        return torch.cuda.max_memory_allocated(device)

    try:
        return replace(estimate, a_row=of_a_row(peak, min(PROBE_ROWS, len(examples), plan.batch_size)))
    except torch.OutOfMemoryError:
        return estimate
    finally:
        model.zero_grad(set_to_none=True)
        release()


def of_a_row(peak: Callable[[int], int], rows: int) -> int | None:
    """From the peaks of a pass of one row and of `rows`: what is there whatever the rows are is in both."""
    if rows < 2:
        return None
    peak(1)  # libraries take their workspaces at the first call
    return max(0, peak(rows) - peak(1)) // (rows - 1)


def one_pass(model: Multimodal, examples: Examples, rows: int, plan: Plan, loss: Criterion) -> None:
    """Forward and backward over the first rows; the weights stay as they are, and no gradient is left."""
    device = next(model.parameters()).device
    batch = examples.batch(torch.arange(rows)).to(device)
    model.train()
    with autocast(plan.precision, device):
        outputs, besides = model.learn(batch.inputs, batch.present)
    total = loss(outputs, batch.targets)
    (total if besides is None else total + besides).backward()
    model.zero_grad(set_to_none=True)


def free_bytes(device: torch.device) -> int:
    """Of a GPU: what torch could still take, and what it holds unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"

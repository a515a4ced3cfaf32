"""What the processes of a group tell each other about a loss over all their rows. Without a group: nothing.

Every function here is called by all processes of the group, in the same order.
"""

import torch.distributed as distributed
from torch import Tensor

from kernels.contrastive import statistics

Group = distributed.ProcessGroup | None

# Their names in torch since 2.13; each replaces one that warns there.
_all_gather = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)
_reduce_scatter = getattr(distributed, "reduce_scatter_single", distributed.reduce_scatter_tensor)


def gathered(rows: Tensor, group: Group) -> Tensor:
    """The rows of all processes, in the order of their ranks."""
    if group is None:
        return rows
    every = rows.new_empty(group.size() * rows.shape[0], *rows.shape[1:])
    _all_gather(every, rows.contiguous(), group=group)
    return every


def offset(rows: Tensor, group: Group) -> int:
    """Where this process's rows start among those of all."""
    return 0 if group is None else group.rank() * rows.shape[0]


def own_sums(parts: Tensor, group: Group) -> Tensor:
    """This process's rows of the sum of what all processes hold of all rows."""
    if group is None:
        return parts
    own = parts.new_empty(parts.shape[0] // group.size(), *parts.shape[1:])
    _reduce_scatter(own, parts, group=group)
    return own


def mean(value: Tensor, group: Group) -> Tensor:
    if group is None:
        return value
    total = value.clone()
    distributed.all_reduce(total, group=group)
    return total / group.size()


def joined(pairs: Tensor, group: Group) -> Tensor:
    """Of `statistics` pairs [2, length] over each process's rows: those over all rows."""
    return pairs if group is None else statistics.joined(gathered(pairs[None], group))

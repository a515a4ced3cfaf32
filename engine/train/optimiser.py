"""AdamW or SGD over a network's trained parameters: one group per tower and per kind of decay."""

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.models.freeze import depths
from engine.models.multimodal import Multimodal
from engine.train.plan import Plan

#: Of the head's rate, for projections that pretraining made: a head's own rate would soon have them forgotten.
TAUGHT_LR = 0.1


def make_optimiser(model: Multimodal, plan: Plan) -> torch.optim.Optimizer:
    """Norms and biases (vectors) are not decayed. `base_lr` is what the schedule scales."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    of_layers = _layer_factors(model, plan)
    for name, parameter in model.trained():
        decay = plan.weight_decay if parameter.dim() > 1 else 0.0
        lr = _base_lr(model, plan, name) * of_layers.get(name, 1.0)
        groups.setdefault((lr, decay), []).append(parameter)
    options = [
        {"params": found, "lr": lr, "base_lr": lr, "weight_decay": decay}
        for (lr, decay), found in groups.items()
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(options, momentum=plan.momentum, fused=True)
    return torch.optim.AdamW(options, fused=True)


def _base_lr(model: Multimodal, plan: Plan, parameter: str) -> float:
    if parameter in model.taught:
        return plan.head_lr * TAUGHT_LR
    part, place, *rest = parameter.split(".") if "." in parameter else (parameter, "")
    if part == "language" and plan.language_lr is not None:
        return plan.language_lr
    # A pool begins at random, as the head does, and learns at its rate.
    is_tower = part == "encoders" and rest[0] != "pool"
    return plan.tower_lr[model.names[int(place)]] if is_tower else plan.head_lr


def _layer_factors(model: Multimodal, plan: Plan) -> dict[str, float]:
    """Parameter -> its layer's share of its tower's rate, where that decays from the top down.

    As in ELECTRA (Clark et al. 2020, arXiv:2003.10555), save that the top layer itself has the whole rate.
    """
    return {
        f"encoders.{model.names.index(tower)}.network.{name}": decay**depth
        for tower, decay in plan.layer_decay.items()
        for name, depth in depths(model.encoder(tower).network).items()
    }


def set_lr(optimiser: torch.optim.Optimizer, factor: float) -> float:
    """Scales every group; the first group's rate is returned, for the log."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimiser.param_groups[0]["lr"])


def optimiser_state(model: Multimodal, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`<parameter>/<word>` -> tensor: by name, so that no order can mix them up."""
    return {
        f"{name}/{word}": tensor.detach().to("cpu", copy=True).contiguous()
        for name, parameter in model.trained()
        for word, tensor in optimiser.state.get(parameter, {}).items()
        if tensor is not None  # the buffer of a momentum of 0
    }


def restore_optimiser(
    model: Multimodal, optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Puts back what `optimiser_state` took."""
    parameters = dict(model.trained())
    for key, tensor in state.items():
        name, _, word = key.rpartition("/")
        parameter = parameters[name]
        # A moment lies in memory as its parameter does, which may be with channels last.
        like = parameter if tensor.shape == parameter.shape else tensor
        optimiser.state[parameter][word] = torch.empty_like(like, device=parameter.device).copy_(tensor)

"""The ways to compute an op that stand side by side: plain PyTorch, compiled PyTorch, a smart form of it, ours."""

from functools import cache
from importlib import import_module
from typing import Any

import torch

from benchmarks.kernels.problem import Problem, Provider

OPS = ("token_pool", "projection", "combine", "mmd", "contrastive", "lowrank")
#: In the order in which they are measured: what matters most first, should the time run out.
PROVIDERS = ("ours", "compile", "eager", "smart", "smart+compile", "max-autotune")


def module(op: str) -> Any:
    """The benchmark's description of an op."""
    return import_module(f"benchmarks.kernels.{op}")


def provider(problem: Problem, name: str) -> Provider | None:
    """The function of that name; None if the problem has none, or is too large for it."""
    if name in problem.too_large_for or (name.startswith("smart") and problem.smart is None):
        return None
    plain = {"ours": problem.ours, "eager": problem.eager, "smart": problem.smart}
    if name in plain:
        return plain[name]
    if name == "smart+compile":
        assert problem.smart is not None
        return _compiled(problem.smart, "default")
    return _compiled(problem.eager, "default" if name == "compile" else "max-autotune-no-cudagraphs")


@cache
def _compiled(plain: Provider, mode: str) -> Provider:
    compiled: Provider = torch.compile(plain, mode=mode, dynamic=False, fullgraph=True)
    return compiled

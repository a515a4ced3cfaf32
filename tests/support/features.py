"""A network over cached features alone, and rows that it can learn: for tests of the loop."""

from typing import Any

import torch
from torch import nn

from domain.specs import Multimodal as Spec
from domain.tasks import Task
from engine.data.dataset import CachedColumn, Examples
from engine.data.targets import Goal
from engine.models.fusion import Concat
from engine.models.heads import classifier
from engine.models.multimodal import Multimodal
from engine.train.plan import Plan, make_plan

WIDTHS = {"left": 6, "right": 4}
CLASSES = 3
GOAL = Goal(Task.CLASSIFICATION, [str(n) for n in range(CLASSES)])


def examples(rows: int = 24, *, seed: int = 0, missing: float = 0.2) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(rows) % CLASSES
    present = torch.rand(rows, len(WIDTHS), generator=generator) >= missing
    present[:, 0] |= ~present.any(1)
    columns = {}
    for place, (name, width) in enumerate(WIDTHS.items()):
        features = torch.randn(rows, width, generator=generator)
        features[torch.arange(rows), targets] += 2
        columns[name] = CachedColumn(features * present[:, place : place + 1])
    return Examples(columns, present, targets)


def network(*, dropout: float = 0.1, seed: int = 0) -> Multimodal:
    torch.manual_seed(seed)
    encoders: dict[str, Any] = {name: nn.Identity() for name in WIDTHS}
    fusion = Concat(list(WIDTHS.values()), 8, modality_dropout=0.15)
    return Multimodal(encoders, frozenset(WIDTHS), fusion, classifier(8, CLASSES, dropout))


def plan(rows: int = 24, **hyperparameters: Any) -> Plan:
    given = {"n_epochs": 4, "batch_size": 4, "learning_rate": 0.01, "logging_steps": 1} | hyperparameters
    towers = {name: {"encoder": "tiny/none"} for name in WIDTHS}
    spec = {"task": "classification", "towers": towers, "hyperparameters": given}
    return make_plan(Spec.model_validate(spec), rows, given.get("precision", "fp32"))

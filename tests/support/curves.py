"""The loss curve of a tiny model of each kind. `python -m support.curves` draws the golden ones anew (tests/golden)."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from engine.models.fusion import FUSIONS, Fusion
from engine.models.fusion.imputing import Imputing
from engine.models.heads import classifier
from engine.models.multimodal import Multimodal
from engine.train.loop import fine_tune
from engine.train.run import _batches
from engine.train.words import Progress
from support import features

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_curves.json"
DIM, DROPOUT = 8, 0.15


def _late(kind: str) -> Fusion:
    return FUSIONS[kind](list(features.WIDTHS.values()), DIM, DROPOUT)


def _imputing(kind: str) -> Fusion:
    widths = list(features.WIDTHS.values())
    return Imputing(FUSIONS[kind]([DIM] * len(widths), DIM, 0.0), widths, DIM, DROPOUT)


#: By the family and, where it has one, the fusion.
NETWORKS: dict[str, Callable[[], Fusion]] = {
    **{f"late-fusion {kind}": partial(_late, kind) for kind in FUSIONS},
    "mm-gan concat": partial(_imputing, "concat"),
    "mm-gan film": partial(_imputing, "film"),
}


def curve(name: str) -> list[float]:
    """The loss of each of 24 steps: rows that lack modalities, modality dropout, dropout and penalties are all in it."""
    torch.manual_seed(0)
    fusion = NETWORKS[name]()
    encoders = {column: nn.Identity() for column in features.WIDTHS}
    head = classifier(DIM, features.CLASSES, dropout=0.1)
    model = Multimodal(encoders, frozenset(features.WIDTHS), fusion, head)  # type: ignore[arg-type]
    plan, rows = features.plan(n_epochs=4), features.examples(24)
    said: list[Progress] = []
    torch.manual_seed(0)
    fine_tune(
        model,
        _batches(rows, plan, seed=0),
        plan,
        evaluate=None,
        report=said.append,
        save=lambda _: None,
        should_stop=lambda: None,
    )
    return [p.metrics["train_loss"] for p in said if p.metrics and "train_loss" in p.metrics]


def main() -> None:
    curves = {name: [round(loss, 6) for loss in curve(name)] for name in sorted(NETWORKS)}
    lines = ",\n".join(f' "{name}": {json.dumps(losses)}' for name, losses in curves.items())
    GOLDEN.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()

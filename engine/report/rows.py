"""Which rows a report is measured on, and how many: a report must stay cheap beside the training."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from engine.data.dataset import Examples
from engine.report.headline import spread

#: Rows whose features are there already, and rows that must be read and encoded anew.
_CACHED = {"train": 2000, "validation": 1000, "measured": 5000, "perturbed": 2000}
_LIVE = {"train": 1000, "validation": 300, "measured": 500, "perturbed": 500}
#: Of the rows that training passed over, one may be encoded once more: a training pass costs about three forward ones.
_SHARE_OF_PASSES = 0.3


@dataclass(frozen=True)
class Chosen:
    split: Literal["test", "validation"]
    #: Of that split, all rows.
    examples: Examples
    towers: list[str]
    #: Rows of each split that probes learn from, are chosen by and are measured on.
    train_rows: Tensor
    validation_rows: Tensor
    rows: Tensor
    #: Of the measured rows, those that are perturbed.
    perturbed: Tensor


def choose(
    train: Examples, validation: Examples, test: Examples, *, towers: list[str], passes: int
) -> Chosen | None:
    """The test rows, or the validation rows where there are none; None without either."""
    if not len(test) and not len(validation):
        return None
    examples = test if len(test) else validation
    most = dict(_CACHED if train.is_cached else _LIVE)
    if not train.is_cached:
        allowed = int(_SHARE_OF_PASSES * passes * len(train))
        most = {part: max(2, min(number, allowed)) for part, number in most.items()}
    rows = spread(len(examples), most["measured"])
    return Chosen(
        split="test" if len(test) else "validation",
        examples=examples,
        towers=towers,
        train_rows=spread(len(train), most["train"]),
        validation_rows=spread(len(validation), most["validation"]),
        rows=rows,
        perturbed=spread(len(rows), most["perturbed"]),
    )

"""What a study found, with confidence intervals: `python -m benchmarks.engine.quality.summary av_digits tuxpaint`.

Intervals are percentiles of a bootstrap over whole groups (voices, descriptions), as rows of one group are alike; of a difference
both arms answer the same drawn groups. Seeds of an arm are averaged, row by row. Folds that not all of the compared arms have
are left out of their difference.
"""

import argparse
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine.quality.asking import RESULTS, WORK
from benchmarks.engine.quality.folds import read_rows, split_rows
from benchmarks.engine.quality.study import WHOLE

DRAWS, WITHIN = 4000, (2.5, 97.5)
GROUPS = {"av_digits": "voice", "tuxpaint": "description", "moving_av_digits": "voice"}
FIELDS = ("what", "folds", "rows", "value", "low", "high", "worst_fold")

#: An arm and its condition.
Answer = tuple[str, str]


def _put_in(*columns: str) -> list[tuple[Answer, Answer]]:
    """One mm-gan, with what it imputes and with something else in that place."""
    return [
        (("mm-gan", f"without {column}"), ("mm-gan", f"without {column}, {other} put in"))
        for column in columns
        for other in ("zero", "token")
    ]


#: What is looked at: an accuracy, or how much larger the first one is than the second.
COMPARED: Mapping[str, list[tuple[Answer, Answer]]] = {
    "av_digits": [
        (("fused", WHOLE), ("image", WHOLE)),
        (("fused", WHOLE), ("audio", WHOLE)),
        (("fused", "without audio"), ("image", WHOLE)),
        (("fused", "without image"), ("audio", WHOLE)),
        *(
            ((f"mm-gan{one}", f"without {column}"), (f"mm-gan{other}", f"without {column}"))
            for column in ("audio", "image")
            for one, other in (("", ", zero instead"), ("", ", token instead"))
        ),
        *_put_in("audio", "image"),
    ],
    "tuxpaint": [
        (("fused", WHOLE), ("image", WHOLE)),
        (("fused", WHOLE), ("caption", WHOLE)),
        (("fused", "without caption"), ("image", WHOLE)),
        (("fused", "without image"), ("caption", WHOLE)),
        (("fused, text tuned", WHOLE), ("caption, tuned", WHOLE)),
        (("fused, text tuned", "without image"), ("caption, tuned", WHOLE)),
        (("fused, text tuned", "without caption"), ("image", WHOLE)),
        *(
            ((f"mm-gan{one}", f"without {column}"), (f"mm-gan{other}", f"without {column}"))
            for column in ("caption", "image")
            for one, other in (("", ", zero instead"), ("", ", token instead"))
        ),
        *_put_in("caption", "image"),
    ],
    "moving_av_digits": [(("fused", WHOLE), ("frames", WHOLE)), (("fused", WHOLE), ("sound", WHOLE))],
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("studies", nargs="+", choices=sorted(GROUPS))
    asked.add_argument("--work", type=Path, default=WORK)
    asked.add_argument("--out", type=Path, default=RESULTS)
    options = asked.parse_args()
    for study in options.studies:
        lines = list(found(study, options.work))
        with (options.out / f"{study}.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, FIELDS)
            table.writeheader()
            table.writerows(lines)
        for line in lines:
            print(study, *line.values())


def found(study: str, work: Path) -> Iterator[dict[str, Any]]:
    answers = _answers(work / f"{study}_answers.jsonl")
    groups = {fold: _groups(study, work, fold) for fold in sorted({f for a in answers.values() for f in a})}
    for answer, right in sorted(answers.items()):
        yield _line(" / ".join(answer), {fold: right[fold] for fold in sorted(right)}, groups)
    for one, other in COMPARED[study]:
        if one in answers and other in answers:
            both = sorted(set(answers[one]) & set(answers[other]))
            more = {fold: answers[one][fold] - answers[other][fold] for fold in both}
            yield _line(f"{' / '.join(one)} - {' / '.join(other)}", more, groups)


def _answers(path: Path) -> dict[Answer, dict[int, NDArray[np.float64]]]:
    """By answer and fold, how often each row was right, over the seeds."""
    seeds: dict[tuple[Answer, int], list[list[float]]] = {}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        key = (line["arm"], line["condition"]), line["fold"]
        seeds.setdefault(key, []).append([float(bit) for bit in line["right"]])
    made: dict[Answer, dict[int, NDArray[np.float64]]] = {}
    for (answer, fold), rows in seeds.items():
        made.setdefault(answer, {})[fold] = np.mean(rows, axis=0)
    return made


def _groups(study: str, work: Path, fold: int) -> list[str]:
    """Of each test row, in their order."""
    rows = split_rows(read_rows(work / study.replace("_", "-")), GROUPS[study], 5, fold)
    return [row[GROUPS[study]] for row in rows if row["split"] == "test"]


def _line(
    what: str, by_fold: Mapping[int, NDArray[np.float64]], groups: Mapping[int, list[str]]
) -> dict[str, Any]:
    names = [name for fold in by_fold for name in groups[fold]]
    values = np.concatenate(list(by_fold.values()))
    low, high = interval(values, names)
    worst = min(float(right.mean()) for right in by_fold.values())
    numbers = (round(float(number), 4) for number in (values.mean(), low, high, worst))
    return dict(zip(FIELDS, (what, len(by_fold), len(values), *numbers), strict=True))


def interval(values: NDArray[np.float64], groups: Iterable[str]) -> tuple[float, float]:
    """Of the mean, with whole groups drawn anew."""
    _, of = np.unique(list(groups), return_inverse=True)
    sums, counts = np.bincount(of, values), np.bincount(of)
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), WITHIN)
    return float(low), float(high)


if __name__ == "__main__":
    main()

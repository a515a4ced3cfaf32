"""The command line that all studies have."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine.quality.study import ROOT, Arm, Study

RESULTS = ROOT / "benchmarks" / "results" / "engine" / "quality"
WORK = ROOT / ".plait" / "quality"


@dataclass(frozen=True)
class Asked:
    study: Study
    arms: Sequence[Arm]
    folds: Sequence[int]
    seeds: Sequence[int]
    #: The file that a data set is made of, if it was given.
    package: Path | None

    @property
    def data(self) -> Path:
        return self.study.data


def asked(doc: str | None, name: str, arms: Mapping[str, Arm], *, group: str, folds: int = 5) -> Asked:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=";".join(arms), help="what to train, by ';', of: %(default)s")
    parser.add_argument("--folds", default=",".join(map(str, range(folds))), help="which ones")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--package", type=Path, help="of tuxpaint: Debian's tuxpaint-stamps-default")
    parser.add_argument("--work", type=Path, default=WORK, help="for data sets, features and answers")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    study = Study(name, options.work / name.replace("_", "-"), group, folds, options.work, options.out)
    return Asked(
        study,
        [arms[word] for word in options.arms.split(";")],
        [int(word) for word in options.folds.split(",")],
        [int(word) for word in options.seeds.split(",")],
        options.package,
    )

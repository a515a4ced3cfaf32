"""What each modality is worth alone, and what fusion gains: linear probes on the towers' starting features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.data.dataset import Examples
from engine.data.targets import Goal
from engine.models.multimodal import Multimodal
from engine.report import bootstrap
from engine.report.features import Features, Started, Tensors, features
from engine.report.headline import Headline
from engine.report.probes import STRENGTHS, Probe, Rows, fit_probe, side_by_side
from engine.report.rows import Chosen

Heed = Callable[[], None]


@dataclass(frozen=True)
class Towers:
    """The starting features of all towers that give vectors, of the chosen rows of each split."""

    train: dict[str, Features]
    validation: dict[str, Features]
    measured: dict[str, Features]
    train_targets: Tensor
    validation_targets: Tensor
    measured_targets: Tensor


@dataclass(frozen=True)
class Baselines:
    section: dict[str, Any]
    metrics: dict[str, float]
    #: What could not be said, and why.
    left_out: list[dict[str, str]]
    #: Of all towers side by side, by which robustness is compared; None with a single tower.
    joint: Probe | None
    #: Which of the measured rows, and of which tower they hold features.
    rows: Tensor
    features: dict[str, Features]


def starting_features(
    model: Multimodal, start: Tensors, train: Examples, validation: Examples, chosen: Chosen, heed: Heed
) -> Towers:
    """Encodes what no cache holds, with the towers' starting weights; `model` is the same afterwards."""
    measured = chosen.examples
    found: dict[str, dict[str, Features]] = {"train": {}, "validation": {}, "measured": {}}
    parts = {
        "train": (train, chosen.train_rows),
        "validation": (validation, chosen.validation_rows),
        "measured": (measured, chosen.rows),
    }
    with Started(model, start) as begun:
        for part, (examples, rows) in parts.items():
            for name in model.names:
                made = features(begun, examples, name, rows, heed)
                if made is not None:
                    found[part][name] = made
    return Towers(
        **found,
        train_targets=train.targets[chosen.train_rows],
        validation_targets=validation.targets[chosen.validation_rows],
        measured_targets=measured.targets[chosen.rows],
    )


def baselines(
    goal: Goal, compared_by: Headline, towers: Towers, outputs: Tensor, chosen: Chosen, heed: Heed
) -> Baselines:
    """`outputs` are the trained model's of the chosen measured rows. Raises what `heed` raises."""
    draws = bootstrap.resamples(len(outputs), heed) if len(outputs) >= bootstrap.FEWEST_ROWS else None
    measure = _Measure(compared_by, towers.measured_targets, draws)
    fused = measure.told(outputs)
    left_out: list[dict[str, str]] = []
    no_vectors = "its tower gives more than one vector a row"
    left_out += [
        {"what": f"unimodal_baselines.{name}", "why": no_vectors}
        for name in chosen.towers
        if name not in towers.train
    ]
    listed: list[dict[str, Any]] = []
    answers: dict[str, Tensor] = {}
    for name in sorted(towers.train):
        probe = _probe(goal, compared_by, towers, [name], heed)
        if probe is None:
            why = "its features are not finite, or its training rows have one class or are fewer than two"
            left_out.append({"what": f"unimodal_baselines.{name}", "why": why})
            continue
        answers[name] = _answers(probe, [towers.measured[name]])
        has = int(towers.measured[name].has.sum())
        listed.append(
            {"tower": name, "probe": probe.kind, "C": probe.strength, "rows_with_it": has}
            | measure.told(answers[name])
        )
    if draws is None:
        why = f"{len(outputs)} rows are fewer than {bootstrap.FEWEST_ROWS}"
        left_out.append({"what": "unimodal_baselines.intervals", "why": why})
    section: dict[str, Any] = {
        "metric": compared_by.name,
        "less_is_better": compared_by.sign < 0,
        "rows": {
            "train": len(towers.train_targets),
            "validation": len(towers.validation_targets),
            "measured": len(outputs),
        },
        "fused": fused,
        "towers": listed,
    }
    metrics = {}
    best = _best(listed, compared_by)
    if best is not None:
        section["best"], metrics["unimodal_best"] = best["tower"], best["value"]
    is_single = len(chosen.towers) == 1
    if best is None or is_single:
        why = "there is one tower only" if is_single else "no single tower could be measured"
        left_out.append({"what": "fusion_gain", "why": why})
    else:
        gain = measure.gain(outputs, answers[best["tower"]])
        section["fusion_gain"] = gain | {"sentence": sentence(compared_by.name, best["tower"], gain)}
        metrics["fusion_gain"] = gain["value"]
    # Only where it has all that the model has: else it would say less of robustness than it seems.
    is_whole = len(listed) > 1 and len(listed) == len(chosen.towers)
    joint = None
    if is_whole:
        # Of more features the strongest regularisation that a single tower chose; a grid of its own would cost as much again.
        strength = min(told["C"] for told in listed)
        joint = _probe(goal, compared_by, towers, sorted(towers.train), heed, [strength])
    if joint is not None:
        together = _answers(joint, [towers.measured[name] for name in sorted(towers.measured)])
        section["all_towers"] = {"probe": joint.kind, "C": joint.strength} | measure.told(together)
    return Baselines(section, metrics, left_out, joint, chosen.rows, towers.measured)


@dataclass(frozen=True)
class _Measure:
    compared_by: Headline
    targets: Tensor
    draws: Tensor | None

    def told(self, outputs: Tensor) -> dict[str, Any]:
        """The metric, its interval if there are rows enough for one, and what is told beside it."""
        found = self.compared_by.measure(outputs, self.targets)
        return {"value": found[self.compared_by.name], "interval": self._interval(outputs), "metrics": found}

    def _interval(self, outputs: Tensor) -> list[float] | None:
        if self.draws is None:
            return None
        return bootstrap.interval(self.compared_by.weighed(outputs, self.targets)(self.draws))

    def gain(self, outputs: Tensor, others: Tensor) -> dict[str, Any]:
        """Of `outputs` over `others`, more is better; the interval is paired: both of the same resampled rows."""
        name, sign = self.compared_by.name, self.compared_by.sign
        one, other = (self.compared_by.measure(o, self.targets)[name] for o in (outputs, others))
        interval = None
        if self.draws is not None:
            both = (self.compared_by.weighed(o, self.targets)(self.draws) for o in (outputs, others))
            interval = bootstrap.interval(sign * (next(both) - next(both)))
        return {"value": sign * (one - other), "interval": interval}


def _probe(
    goal: Goal,
    compared_by: Headline,
    towers: Towers,
    names: Sequence[str],
    heed: Heed,
    strengths: Sequence[float] = STRENGTHS,
) -> Probe | None:
    train = _rows(towers.train, names, towers.train_targets)
    # Of a row that lacks all towers asked, nothing is learned.
    there = train.has.any(1)
    train = Rows(train.vectors[there], train.has[there], train.targets[there])
    validation = _rows(towers.validation, names, towers.validation_targets)
    return fit_probe(goal, compared_by, train, validation, heed, strengths)


def _rows(of: dict[str, Features], names: Sequence[str], targets: Tensor) -> Rows:
    vectors, has = side_by_side([(of[name].vectors, of[name].has) for name in names])
    return Rows(vectors, has, targets)


def _answers(probe: Probe, towers: Sequence[Features]) -> Tensor:
    return probe(*side_by_side([(f.vectors, f.has) for f in towers]))


def _best(listed: list[dict[str, Any]], compared_by: Headline) -> dict[str, Any] | None:
    return max(listed, key=lambda told: compared_by.sign * told["value"], default=None)


def sentence(metric: str, best: str, gain: dict[str, Any]) -> str:
    """What a person asks: does it pay to have several modalities?"""
    value, interval = gain["value"], gain["interval"]
    sure = f" ({interval[0]:.3g} to {interval[1]:.3g})" if interval else ""
    over = f"over the best single modality, '{best}'"
    if value <= 0:
        return f"Fusion did not help: {value:.3g} of {metric}{sure} {over}."
    chance = "; that may be chance" if interval and interval[0] <= 0 else ""
    return f"Fusion gains {value:.3g} of {metric}{sure} {over}{chance}."
